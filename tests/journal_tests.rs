mod common {
    pub mod journal_disk;
    pub mod sim_disk;
}
mod journal_crash;
mod journal_damage;
mod journal_use;
