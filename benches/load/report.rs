//! The medians of all rounds, as a table.

use std::{collections::BTreeMap, fmt};

use super::{run::Figures, scene::Scene};

#[derive(Default)]
pub struct Report(BTreeMap<(usize, Scene), Vec<Figures>>);

impl Report {
    pub fn add(&mut self, scene: Scene, connections: usize, figures: Figures) {
        self.0.entry((connections, scene)).or_default().push(figures);
    }

    fn median(&self, connections: usize, scene: Scene, of: impl Fn(&Figures) -> f64) -> f64 {
        let Some(runs) = self.0.get(&(connections, scene)) else { return f64::NAN };
        let mut values: Vec<f64> = runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| connections | scene | server CPU us/event | x bare | accepted/s | p50 ms | p99 ms \
             | arriving/s | broker CPU us/event | peak MiB | refused |"
        )?;
        writeln!(f, "|{}", " ---: |".repeat(11).replacen(" ---: | ---: |", " ---: | --- |", 1))?;
        for &(connections, scene) in self.0.keys() {
            let median = |of: fn(&Figures) -> f64| shown(self.median(connections, scene, of));
            let server = self.median(connections, scene, |figures| figures.server_us);
            let bare = self.median(connections, Scene::Bare, |figures| figures.server_us);
            writeln!(
                f,
                "| {connections} | {scene} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                shown(server),
                shown(server / bare),
                median(|figures| figures.accepted_per_second),
                median(|figures| figures.p50_ms),
                median(|figures| figures.p99_ms),
                median(|figures| figures.arrived_per_second),
                median(|figures| figures.broker_us),
                median(|figures| figures.resident_mib),
                median(|figures| figures.refused as f64),
            )?;
        }
        Ok(())
    }
}

/// As many digits as mean something.
fn shown(value: f64) -> String {
    match value {
        value if value.is_nan() => "-".to_owned(),
        value if value >= 1000.0 || value == 0.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
