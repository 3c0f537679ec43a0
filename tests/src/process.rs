//! Processes that end with the test.

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    fs::{self, File},
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// The binary under test: `RINGMASTER_BIN`, or the one that was built beside the tests.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("RINGMASTER_BIN").map_or_else(
        || {
            let own = std::env::current_exe().expect("a process knows its own path");
            let beside = own.with_file_name("ringmaster");
            if beside.exists() {
                return beside;
            }
            // target/debug/deps/test-… → target/debug/ringmaster
            own.ancestors().nth(2).expect("tests are built in a target directory").join("ringmaster")
        },
        PathBuf::from,
    );
    assert!(path.exists(), "{} is not built; run `cargo build --workspace` first", path.display());
    path
}

/// A program of this package, which is built with the tests.
pub fn beside(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a process knows its own path");
    let places = own.ancestors().skip(1).take(2).map(|place| place.join(name));
    places.into_iter().find(|path| path.exists()).unwrap_or_else(|| {
        panic!("{name} is not built beside {}; run `cargo build --workspace` first", own.display())
    })
}

/// The same program, playing the version after this one. `scripts/test` builds it.
pub fn next_binary() -> PathBuf {
    let path = binary().with_file_name("ringmaster-next");
    assert!(
        path.exists(),
        "{} is not built; run `cargo build -p ringmaster --features next-version`, copy the program there, and \
         build without the feature again",
        path.display()
    );
    path
}

/// Python, with what the tests of its client need: `RINGMASTER_PYTHON`, or what `scripts/test` has installed.
pub fn python() -> PathBuf {
    let path = std::env::var_os("RINGMASTER_PYTHON").map_or_else(
        || {
            let own = std::env::current_exe().expect("a process knows its own path");
            // target/debug/deps/test-… → target/python/bin/python
            let target = own.ancestors().nth(3).expect("tests are built in a target directory");
            target.join("python/bin/python")
        },
        PathBuf::from,
    );
    assert!(path.exists(), "{} is not there; scripts/test installs it (need_python)", path.display());
    path
}

/// Ports that are free now, and different ones. They lie below those that the kernel gives to outgoing connections:
/// one of these could take such a port before it is used. Tests that run beside each other begin their search in
/// different places.
pub fn free_ports<const N: usize>() -> [u16; N] {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 10_000;
    /// More than a test uses.
    const ROOM: u32 = 61;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let free = || loop {
        let nth = TAKEN.fetch_add(1, Ordering::Relaxed);
        assert!(nth < COUNT, "no port is free");
        let port = FIRST + (std::process::id().wrapping_mul(ROOM).wrapping_add(nth)) % COUNT;
        let port = u16::try_from(port).expect("it is below 20,000");
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return (port, listener);
        }
    };
    let held: [(u16, TcpListener); N] = std::array::from_fn(|_| free());
    held.map(|(port, _)| port)
}

/// The first of 400 ports for a demo: it derives those of its nodes from one. Tests that start at the
/// same time begin their search in different places, because nothing holds a port until it is used.
pub fn free_base_port() -> u16 {
    const WANTED: [u16; 14] = [1, 2, 3, 101, 102, 103, 201, 202, 203, 301, 302, 303, 304, 305];
    const ROOMS: u32 = 100;
    let rooms = (0..ROOMS).map(|nth| (std::process::id() + nth) % ROOMS);
    for base in rooms.map(|room| 20_000 + 400 * room as u16) {
        if WANTED.iter().all(|offset| TcpListener::bind(("127.0.0.1", base + offset)).is_ok()) {
            return base;
        }
    }
    panic!("no room for a demo's ports")
}

/// A child process with its output in a file. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn start(command: &mut Command, log: &Path) -> Process {
        let output = File::options().create(true).append(true).open(log).expect("the log can be written");
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file can be shared"))
            .stderr(output)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        Process { child, log: log.to_owned() }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("process ids are small"))
    }

    /// To the process and to what it was started by, such as a tracer.
    pub fn signal(&self, signal: Signal) {
        killpg(self.pid(), signal).unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.pid()));
    }

    /// SIGKILL to it and to what it has started, and gone when this returns.
    pub fn kill(&mut self) {
        if self.running() {
            // Meanwhile it may have ended; then it is gone all the same.
            let _ = killpg(self.pid(), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "the process runs on after {within:?}:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its output so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
