//! `waltide recover`: says what is lost, asks, and does it.

use super::args::{Recover, RecoverWay};
use super::{Failure, agreed, chosen, runtime, say};
use crate::config::Config;
use crate::fault::{Code, Fault};
use crate::pipeline::{self, Way};

pub(super) fn recover(config: Config, asked: &Recover) -> Result<(), Failure> {
    let way = match asked.way {
        RecoverWay { resnapshot: true, .. } => Way::Resnapshot,
        RecoverWay { adopt: true, .. } => Way::Adopt,
        _ => Way::AcceptGap,
    };
    let runtime = runtime()?;
    for settings in chosen(config, Some(&asked.pipeline))? {
        let decision = runtime.block_on(pipeline::consider(&settings, way, runtime.handle()))?;
        say(&decision.to_string())?;
        if !asked.yes && !agreed() {
            runtime.block_on(decision.decline())?;
            return Err(Fault::new(
                Code::NothingToRecover,
                "nothing was done".to_owned(),
                "answer yes, or add --yes where nobody can be asked",
            )
            .into());
        }
        runtime.block_on(decision.carry_out())?;
        say(&format!("done: start the daemon, and pipeline {} goes on\n", settings.name))?;
    }
    Ok(())
}
