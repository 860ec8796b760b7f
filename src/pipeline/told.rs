//! The life of the task that tells the server where we are: it begins with the stream, before
//! anything else is asked of anybody, and says the last word.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::diagnosis;
use super::positions::{self, Positions};
use crate::postgres::{Error, StreamReader, StreamWriter};

/// The task that tells the server where we are.
pub(super) struct Told {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<StreamWriter, Error>>,
    positions: Arc<Positions>,
}

impl Told {
    pub(super) fn start(
        control: &Handle,
        mut writer: StreamWriter,
        positions: Arc<Positions>,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&positions);
        let task = control.spawn(async move {
            tokio::select! {
                // A dropped sender stops it as well: nothing feeds a connection that has no owner.
                _ = stopped => {}
                told = positions::tell(&mut writer, &shared) => {
                    told.inspect_err(|error| shared.lose(diagnosis::of_source(error)))?;
                }
            }
            Ok(writer)
        });
        Self { stop, task, positions }
    }

    /// Tells the last position and ends the stream in order.
    pub(super) async fn end(self, reader: StreamReader) -> Result<(), Error> {
        let _ = self.stop.send(());
        let Ok(writer) = self.task.await else { return Ok(()) };
        let mut writer = writer?;
        positions::tell_last(&mut writer, &self.positions).await?;
        writer.finish().await?;
        reader.rejoin(writer).await?.close().await;
        Ok(())
    }
}
