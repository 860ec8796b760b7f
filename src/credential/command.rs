//! Runs a command that prints a secret: no longer than is bearable, and with what it had to say
//! where it failed. What it printed is shown nowhere.

use std::io::{self, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::{MAX_SECRET_BYTES, without_line_break};

/// How long a command may take. Tools of cloud providers take one or two seconds; `run` promises to
/// name what is wrong within ten.
pub(super) const COMMAND_WAIT: Duration = Duration::from_secs(5);

/// Of what it writes to its standard error, how much a message quotes: the end, where the reason is.
const MAX_SAID_BYTES: usize = 500;

/// How often it is looked whether a command has ended that has closed its output.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What the command prints, without the line break at its end.
pub(super) fn run(words: &[String], within: Duration) -> io::Result<String> {
    let deadline = Instant::now() + within;
    let (program, arguments) = words.split_first().ok_or_else(|| io::Error::other("no command"))?;
    let failed = |what: String| io::Error::other(format!("`{program}` {what}"));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that what it has started can be ended with it.
        .process_group(0)
        .spawn()
        .map_err(|error| failed(format!("cannot be run: {error}")))?;
    let printed = reading(child.stdout.take(), |pipe| {
        let mut text = Vec::new();
        pipe.take(MAX_SECRET_BYTES + 1).read_to_end(&mut text).map(|_| text)
    });
    let said = reading(child.stderr.take(), end_of);
    let ended = (|| {
        let printed = wait_for(&printed, deadline)?;
        let said = wait_for(&said, deadline)?;
        Some((printed, said, wait_until(&mut child, deadline)?))
    })();
    let Some((printed, said, status)) = ended else {
        end(&mut child);
        let said = said.try_recv().ok().and_then(Result::ok).unwrap_or_default();
        return Err(failed(format!("did not end within {} s{}", within.as_secs(), quoted(&said))));
    };
    let (printed, said) = (printed?, said?);
    // First this: it may have failed because nobody read on.
    if printed.len() as u64 > MAX_SECRET_BYTES {
        return Err(failed(format!("prints more than {MAX_SECRET_BYTES} bytes")));
    }
    if !status.success() {
        return Err(failed(format!("{}{}", how(status), quoted(&said))));
    }
    let printed = String::from_utf8(printed).map_err(|_| failed("prints no UTF-8".to_owned()))?;
    match without_line_break(printed) {
        nothing if nothing.is_empty() => Err(failed(format!("prints nothing{}", quoted(&said)))),
        secret => Ok(secret),
    }
}

type Bytes = io::Result<Vec<u8>>;

/// Reads a pipe on a thread of its own, which ends with the pipe.
fn reading<P: Read + Send + 'static>(
    pipe: Option<P>,
    read: impl FnOnce(P) -> Bytes + Send + 'static,
) -> Receiver<Bytes> {
    let (sender, receiver) = channel();
    if let Some(pipe) = pipe {
        // Nobody may be waiting any more; then there is nothing to tell.
        thread::spawn(move || drop(sender.send(read(pipe))));
    }
    receiver
}

/// The last bytes of what comes, however much it is: a pipe that nobody empties stops its writer.
fn end_of(mut pipe: impl Read) -> Bytes {
    let (mut end, mut more) = (Vec::new(), [0; 4096]);
    loop {
        let count = pipe.read(&mut more)?;
        if count == 0 {
            return Ok(end);
        }
        end.extend_from_slice(more.get(..count).unwrap_or_default());
        end.drain(..end.len().saturating_sub(MAX_SAID_BYTES));
    }
}

fn wait_for(read: &Receiver<Bytes>, deadline: Instant) -> Option<Bytes> {
    read.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
}

/// It may close its output and go on.
fn wait_until(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(LOOK_EVERY),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Ends a command and what it has started.
fn end(child: &mut Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        // It may have ended just now.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "failed".to_owned(),
    }
}

/// What it said, on one line.
fn quoted(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() { line } else { format!(": {line}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, within: Duration) -> Result<String, String> {
        let words = ["sh", "-c", script].map(str::to_owned);
        run(&words, within).map_err(|error| error.to_string())
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_it_prints_counts_without_the_line_break_at_its_end() {
        assert_eq!(shell("echo ' one  two '; echo beside >&2", LONG).as_deref(), Ok(" one  two "));
        assert_eq!(shell("printf 'a\\nb\\r\\n'", LONG).as_deref(), Ok("a\nb"));
    }

    #[test]
    fn a_failure_says_what_the_command_said_and_never_what_it_printed() {
        let told = shell("echo zq1secret; echo 'the vault\n is sealed' >&2; exit 3", LONG);
        assert_eq!(told, Err("`sh` ended with exit status 3: the vault is sealed".to_owned()));
        assert_eq!(shell("kill -9 $$", LONG), Err("`sh` was ended by signal 9".to_owned()));
        assert_eq!(shell("echo why >&2", LONG), Err("`sh` prints nothing: why".to_owned()));
        let words = ["/nowhere/at/all".to_owned()];
        let told = run(&words, LONG).unwrap_err().to_string();
        assert!(told.starts_with("`/nowhere/at/all` cannot be run: No such file"), "{told}");
    }

    #[test]
    fn what_it_says_and_prints_is_bounded() {
        let told =
            shell("yes no | head -c 1000000 >&2; echo reason >&2; exit 1", LONG).unwrap_err();
        assert!(told.len() < 600 && told.ends_with("reason"), "{told}");
        let told = shell("yes | head -c 1000000", LONG).unwrap_err();
        assert_eq!(told, "`sh` prints more than 65536 bytes");
    }

    #[test]
    fn one_that_does_not_end_is_ended_with_all_it_has_started() {
        let seconds = 1_000_000 + std::process::id();
        let started = Instant::now();
        let script = format!("echo waiting >&2; sleep {seconds} & wait");
        let told = shell(&script, Duration::from_millis(500)).unwrap_err();
        assert!(told.starts_with("`sh` did not end within 0 s"), "{told}");
        assert!(started.elapsed() < LONG);
        // What was started is killed, and its parent's end does not wait for that.
        let gone = || {
            let listed = Command::new("ps").args(["-eo", "args"]).output().unwrap();
            !String::from_utf8_lossy(&listed.stdout).contains(&format!("sleep {seconds}"))
        };
        while !gone() {
            assert!(started.elapsed() < LONG);
            thread::sleep(LOOK_EVERY);
        }
    }

    #[test]
    fn one_that_closes_its_output_and_goes_on_is_not_waited_for_either() {
        let told = shell("echo x; exec >&- 2>&-; sleep 1000", Duration::from_millis(300));
        assert_eq!(told, Err("`sh` did not end within 0 s".to_owned()));
    }
}
