//! All CPUs busy, as on a host that has something else to do.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use dt_tests::Proc;

use super::stage::Stage;

/// Three busy processes for each CPU. Dropping it ends them.
pub struct Stress {
    process: Proc,
}

impl Stress {
    /// Starts them on the first host, so that they go with it whatever happens to this process.
    pub fn start(stage: &Stage) -> Result<Self> {
        let cpus = thread::available_parallelism()?.get();
        let mut command = stage.host("n1").command("stress-ng");
        command
            .args([
                "--quiet",
                "--cpu",
                &(cpus * WORKERS_PER_CPU).to_string(),
                "--temp-path",
            ])
            .arg(stage.dir());
        Ok(Self {
            process: Proc::spawn("stress-ng", &stage.dir(), &mut command)?,
        })
    }

    /// Ends them.
    pub fn finish(mut self) -> Result<()> {
        // By a signal that lets it end its workers; Ctrl-C may have ended it already.
        if self.process.wait(Duration::ZERO).is_err() {
            self.process.terminate(END_LIMIT)?;
        }
        Ok(())
    }
}

const WORKERS_PER_CPU: usize = 3;
const END_LIMIT: Duration = Duration::from_secs(10);
