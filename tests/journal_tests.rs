mod common {
    pub mod sim_disk;
}
mod journal_crash;
mod journal_damage;
