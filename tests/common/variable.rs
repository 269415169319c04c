//! How much a test does, which `make soak` raises.

/// A number from the environment, or what is enough each time.
pub fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("a number"))
}
