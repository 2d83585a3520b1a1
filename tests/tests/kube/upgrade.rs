//! Other agents in the place of those that run.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use dt_tests::wait;

use super::{LIMIT, Mesh, Window};

impl Mesh<'_> {
    /// A rolling update; the programs that stay answer meanwhile.
    pub(super) fn restart_loses_nothing(&self) -> Result<()> {
        self.cluster
            .kubectl(&["rollout", "restart", "daemonset/distributed-trace-agent"])?;
        self.rolled_out("the same agents anew")
    }

    /// An agent whose programs and maps are of the next ABI version, and the one of before.
    pub(super) fn other_abi_and_back_lose_nothing(&self) -> Result<()> {
        let tag = format!("image.tag={}-next", env!("CARGO_PKG_VERSION"));
        let chart = ["upgrade", "distributed-trace", "helm-charts/dt-chart"];
        self.cluster
            .helm(&[&chart[..], &["--reuse-values", "--set", &tag]].concat())?;
        self.rolled_out("another ABI version")?;
        self.cluster.helm(&["rollback", "distributed-trace"])?;
        self.rolled_out("the ABI version of before")
    }

    /// Waits for the end of an update and for what was measured after it: nothing was lost since the beginning of the
    /// topic, and no agent ever paused.
    fn rolled_out(&self, what: &str) -> Result<()> {
        let status = [
            "rollout",
            "status",
            "daemonset/distributed-trace-agent",
            "--timeout=3m",
        ];
        self.cluster.kubectl(&status)?;
        let before = sent(&self.windows()?);
        let windows = wait::until("windows of after the update", LIMIT, || {
            // The console starts anew where a broker is not found at once.
            let windows = self.windows().unwrap_or_default();
            Ok((sent(&windows) > before + 300).then_some(windows))
        })?;
        let lost: u64 = windows.iter().map(|window| window.lost).sum();
        ensure!(
            lost == 0,
            "{what}: {lost} of {} probes lost",
            sent(&windows)
        );
        let starts = nobody_paused(&windows)?;
        println!(
            "{what}: {} sent by {starts} starts of agents since the beginning, 0 lost, none paused",
            sent(&windows)
        );
        Ok(())
    }
}

/// Within each start of an agent the windows of each pair follow each other without a gap, and probes were sent in each but
/// the first and the last. How many starts there were.
fn nobody_paused(windows: &[Window]) -> Result<usize> {
    let mut pairs: BTreeMap<_, Vec<&Window>> = BTreeMap::new();
    for window in windows {
        let pair = (&window.start, &window.source, &window.peer);
        pairs.entry(pair).or_default().push(window);
    }
    let mut starts: Vec<_> = pairs.keys().map(|(start, ..)| *start).collect();
    starts.dedup();
    for ((start, source, peer), mut row) in pairs {
        row.sort_by_key(|window| window.start_ns);
        for two in row.windows(2) {
            let gap = two[1].start_ns.saturating_sub(two[0].end_ns);
            ensure!(
                gap < 1_000_000,
                "{source} to {peer}, start {start}: {gap} ns between two windows"
            );
        }
        let inner = row.get(1..row.len().saturating_sub(1)).unwrap_or_default();
        let idle = inner.iter().find(|window| window.sent == 0);
        ensure!(
            idle.is_none(),
            "{source} sent nothing to {peer} in a window of start {start}"
        );
    }
    Ok(starts.len())
}

pub(super) fn sent(windows: &[Window]) -> u64 {
    windows.iter().map(|window| window.sent).sum()
}
