//! Holds a broker's process so that it cannot outlive the test process.
//!
//! A drop guard is not enough: statics are never dropped, and a killed process drops nothing. So
//! a small shell starts the broker in a process group of its own and then reads its standard
//! input, a pipe that only the test process holds. At its end, for whatever reason, the shell kills
//! that group and removes the broker's directory.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use rustix::{
    io::Errno,
    process::{Pid, Signal},
};

use super::group;

/// Arguments: the broker's directory, its log, its command line.
///
/// The shell does not wait for the broker while it reads, so the broker's process id stays taken
/// even after its death and a signal can never reach a stranger. Right after the fork there is no
/// group yet, hence the second `kill`. A dying process may still create files, hence the loop.
const SCRIPT: &str = r#"
dir=$1 log=$2
shift 2
setsid "$@" </dev/null >>"$log" 2>&1 &
broker=$!
echo "$broker"
exec >/dev/null 2>&1
keep=no
read -r keep
kill -s KILL -- "-$broker" || kill -s KILL "$broker"
wait "$broker"
[ "$keep" = keep ] && exit
for _ in 1 2 3 4 5 6 7 8 9 10; do
    rm -rf -- "$dir" && exit
    sleep 0.2
done
"#;

pub struct Leash {
    shell: Child,
    /// Taken when the leash is let go.
    input: Option<ChildStdin>,
    broker: Pid,
}

impl Leash {
    /// Starts `command` (its program, arguments, and environment) with its output in `log`.
    pub fn start(command: &Command, dir: &Path, log: &Path) -> Result<Leash, String> {
        let mut shell = leashed(command, dir, log)
            .spawn()
            .map_err(|error| format!("cannot start a shell: {error}"))?;
        let input = shell.stdin.take();
        let output = shell.stdout.take().ok_or("the shell has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).map_err(|error| error.to_string())?;
        let broker = line.trim().parse().ok().and_then(Pid::from_raw);
        let broker = broker.ok_or(format!("the shell said {line:?}, not a process id"))?;
        Ok(Leash { shell, input, broker })
    }

    /// Signals the broker's first process.
    pub fn signal(&self, signal: Signal) {
        reached(rustix::process::kill_process(self.broker, signal));
    }

    /// Signals all of the broker's process group.
    pub fn signal_all(&self, signal: Signal) {
        reached(rustix::process::kill_process_group(self.broker, signal));
    }

    /// Whether the broker's first process has ended.
    pub fn has_ended(&self) -> bool {
        group::process_has_ended(self.broker)
    }

    /// Whether nothing of the broker's process group is left.
    pub fn has_all_ended(&self) -> bool {
        group::has_ended(self.broker)
    }

    /// Whether all of the broker's process group is stopped.
    pub fn is_paused(&self) -> bool {
        group::is_paused(self.broker)
    }

    /// Kills what is left of the broker and keeps its directory.
    pub fn release(mut self) {
        if let Some(mut input) = self.input.take() {
            // A shell that is gone has nothing left to keep.
            let _ = input.write_all(b"keep\n");
        }
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.input = None;
        // The shell ends by itself, and there is nobody to tell when it cannot be waited for.
        let _ = self.shell.wait();
    }
}

/// Nobody is left to reach where the shell is one that waits for its children early.
fn reached(result: Result<(), Errno>) {
    match result {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => panic!("cannot signal a broker of our own: {error}"),
    }
}

/// `command` run by [`SCRIPT`], out of the terminal's reach: Ctrl-C must not end the leash first.
fn leashed(command: &Command, dir: &Path, log: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(SCRIPT).arg("leash").arg(dir).arg(log);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.current_dir(dir).process_group(0);
    shell.stdin(Stdio::piped()).stdout(Stdio::piped());
    shell
}
