//! Supervision of background tasks: a node does not outlive its loops.
//!
//! Every long-lived task and thread of a node is started here, under a name. A loop that returns, and any task that
//! panics, is a [`TaskFailure`]: [`Supervisor::failed`] reports the first one, and the node ends with it. A node
//! without one of its loops would look alive and do half of its work: it could renew its lease and expire no lock.
//!
//! What always holds: a task that its owner aborts is no failure, and once [`Supervisor::begin_stop`] was called,
//! neither is an end. Tasks are stopped in the reverse order of their start, so that each finds what it was built on.
//!
//! Deliberately absent: restarts. What a panic left behind is unknown, and the other nodes take over within
//! milliseconds. Work for one request or one connection is not supervised: its panic ends that connection alone.

use futures::FutureExt;
use std::{
    any::Any,
    borrow::Cow,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle as ThreadHandle},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::watch,
    task::{AbortHandle, JoinHandle},
    time::timeout,
};

/// Test hook: the task of this name panics shortly after it was started.
const TEST_PANIC_VARIABLE: &str = "RINGMASTER_TEST_PANIC_TASK";
/// How long after its start it does.
const TEST_PANIC_AFTER: Duration = Duration::from_millis(300);
/// How long a stop waits for one task. One that takes longer blocks its thread, and ends with the process.
const STOP_TIMEOUT: Duration = Duration::from_millis(200);
/// Finished tasks are dropped from the list when it has grown to this, and to twice what remained.
const MIN_PRUNE: usize = 64;

type Name = Cow<'static, str>;

/// Why a task is not running any more although nothing asked it to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFailure {
    pub task: String,
    pub cause: FailureCause,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailureCause {
    Returned,
    Panicked(String),
}

impl fmt::Display for TaskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            FailureCause::Returned => write!(f, "task {} ended unexpectedly", self.task),
            FailureCause::Panicked(message) => write!(f, "task {} panicked: {message}", self.task),
        }
    }
}

impl std::error::Error for TaskFailure {}

/// Starts tasks, watches them, and stops them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Supervisor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    failure: watch::Sender<Option<TaskFailure>>,
    is_stopping: AtomicBool,
    tasks: Mutex<Tasks>,
    test_panic: Option<String>,
}

/// The tasks in the order of their start; those that have finished are pruned now and then.
#[derive(Debug, Default)]
struct Tasks {
    running: Vec<(Name, JoinHandle<()>)>,
    prune_at: usize,
}

impl Default for Supervisor {
    fn default() -> Self {
        Supervisor::new()
    }
}

impl Supervisor {
    pub fn new() -> Supervisor {
        Supervisor::with_test_panic(std::env::var(TEST_PANIC_VARIABLE).ok())
    }

    fn with_test_panic(test_panic: Option<String>) -> Supervisor {
        Supervisor(Arc::new(Inner {
            failure: watch::Sender::default(),
            is_stopping: AtomicBool::new(false),
            tasks: Mutex::default(),
            test_panic,
        }))
    }

    /// Starts a loop that runs for as long as the node does. That it returns is a failure.
    pub fn spawn_loop(
        &self,
        name: impl Into<Name>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        self.spawn_loop_on(&Handle::current(), name, task)
    }

    /// The same on another runtime.
    pub fn spawn_loop_on(
        &self,
        runtime: &Handle,
        name: impl Into<Name>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        self.start(runtime, name.into(), task, Some(FailureCause::Returned))
    }

    /// Starts work that returns when it is done. Only a panic is a failure.
    pub fn spawn_job(
        &self,
        name: impl Into<Name>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        self.start(&Handle::current(), name.into(), task, None)
    }

    /// Starts a thread of that name, whose work returns when its owner has asked for that. Only a panic is a failure.
    pub fn spawn_thread(
        &self,
        name: impl Into<Name>,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<ThreadHandle<()>> {
        let (inner, name) = (self.0.clone(), name.into());
        let test_panic = inner.panics_for_test(&name);
        thread::Builder::new().name(name.clone().into_owned()).spawn(move || {
            let work = AssertUnwindSafe(|| {
                if test_panic {
                    thread::sleep(TEST_PANIC_AFTER);
                    panic_for_test();
                }
                work();
            });
            if let Err(panic) = catch_unwind(work) {
                inner.fail(&name, FailureCause::Panicked(message(&*panic)));
            }
        })
    }

    fn start(
        &self,
        runtime: &Handle,
        name: Name,
        task: impl Future<Output = ()> + Send + 'static,
        failure_on_return: Option<FailureCause>,
    ) -> AbortHandle {
        let (inner, task_name) = (self.0.clone(), name.clone());
        let test_panic = inner.panics_for_test(&name);
        let supervised = async move {
            let task = async {
                if !test_panic {
                    return task.await;
                }
                // The task works until it panics, as one with a defect would.
                let _ = timeout(TEST_PANIC_AFTER, task).await;
                panic_for_test();
            };
            let cause = match AssertUnwindSafe(task).catch_unwind().await {
                Ok(()) => failure_on_return,
                Err(panic) => Some(FailureCause::Panicked(message(&*panic))),
            };
            if let Some(cause) = cause {
                inner.fail(&task_name, cause);
            }
        };
        let handle = runtime.spawn(supervised);
        let abort = handle.abort_handle();
        self.0.tasks().push(name, handle);
        abort
    }

    /// Waits until a task has failed. It never returns once a stop has begun.
    pub async fn failed(&self) -> TaskFailure {
        let mut failure = self.0.failure.subscribe();
        match failure.wait_for(Option::is_some).await.map(|failure| failure.clone()) {
            Ok(Some(failure)) => failure,
            // The sender lives as long as this.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// From now on tasks may end.
    pub fn begin_stop(&self) {
        self.0.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Ends all tasks, the last that was started first.
    pub async fn stop(&self) {
        self.begin_stop();
        let running = std::mem::take(&mut self.0.tasks().running);
        for (name, handle) in running.into_iter().rev() {
            handle.abort();
            if timeout(STOP_TIMEOUT, handle).await.is_err() {
                tracing::warn!(task = %name, "a task did not stop in time");
            }
        }
    }
}

impl Inner {
    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn panics_for_test(&self, name: &str) -> bool {
        self.test_panic.as_deref() == Some(name)
    }

    /// The first failure stays: others may follow from it.
    fn fail(&self, task: &str, cause: FailureCause) {
        if self.is_stopping.load(Ordering::Relaxed) {
            return;
        }
        self.failure.send_if_modified(|failure| {
            let is_first = failure.is_none();
            if is_first {
                *failure = Some(TaskFailure { task: task.to_owned(), cause });
            }
            is_first
        });
    }
}

impl Tasks {
    fn push(&mut self, name: Name, handle: JoinHandle<()>) {
        if self.running.len() >= self.prune_at {
            self.running.retain(|(_, handle)| !handle.is_finished());
            self.prune_at = (2 * self.running.len()).max(MIN_PRUNE);
        }
        self.running.push((name, handle));
    }
}

fn panic_for_test() -> ! {
    panic!("{TEST_PANIC_VARIABLE} names this task")
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    /// What a wait for a failure may take in a test that expects one, and how long one that expects none waits.
    const FAILS_WITHIN: Duration = Duration::from_secs(5);
    const NO_FAILURE_WITHIN: Duration = Duration::from_millis(50);

    async fn failure(supervisor: &Supervisor) -> String {
        timeout(FAILS_WITHIN, supervisor.failed()).await.expect("a failure").to_string()
    }

    async fn has_failed(supervisor: &Supervisor) -> bool {
        timeout(NO_FAILURE_WITHIN, supervisor.failed()).await.is_ok()
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_that_names_the_task() {
        let supervisor = Supervisor::with_test_panic(None);
        supervisor.spawn_loop("healthy", pending());
        supervisor.spawn_job("bootstrap", async { panic!("{} of {}", 1, 3) });
        assert_eq!(failure(&supervisor).await, "task bootstrap panicked: 1 of 3");
        supervisor.spawn_loop("later", async { panic!("it follows from the first") });
        tokio::task::yield_now().await;
        assert!(failure(&supervisor).await.contains("bootstrap"), "the first failure stays");
    }

    #[tokio::test]
    async fn the_end_of_a_loop_is_a_failure_and_that_of_a_job_is_not() {
        let supervisor = Supervisor::with_test_panic(None);
        supervisor.spawn_job("bootstrap", async {});
        supervisor.spawn_thread("worker", || {}).unwrap().join().unwrap();
        assert!(!has_failed(&supervisor).await);
        supervisor.spawn_loop("expiry", async {});
        assert_eq!(failure(&supervisor).await, "task expiry ended unexpectedly");
    }

    #[tokio::test]
    async fn a_thread_that_panics_is_a_failure() {
        let supervisor = Supervisor::with_test_panic(None);
        let thread = supervisor.spawn_thread(format!("worker-{}", 7), || panic!("no room")).unwrap();
        assert_eq!(failure(&supervisor).await, "task worker-7 panicked: no room");
        assert!(thread.join().is_ok(), "its panic was reported once");
    }

    #[tokio::test]
    async fn an_end_that_was_asked_for_is_no_failure() {
        let supervisor = Supervisor::with_test_panic(None);
        supervisor.spawn_loop("link", pending()).abort();
        assert!(!has_failed(&supervisor).await);
        supervisor.begin_stop();
        supervisor.spawn_loop("server", async {});
        assert!(!has_failed(&supervisor).await);
    }

    #[tokio::test]
    async fn tasks_stop_in_the_reverse_order_of_their_start() {
        struct Ends(&'static str, Arc<Mutex<Vec<&'static str>>>);
        impl Drop for Ends {
            fn drop(&mut self) {
                self.1.lock().unwrap().push(self.0);
            }
        }
        let (supervisor, ended) = (Supervisor::with_test_panic(None), Arc::<Mutex<Vec<_>>>::default());
        for name in ["links", "telemetry", "controllers"] {
            let guard = Ends(name, ended.clone());
            supervisor.spawn_loop(name, async move {
                let _guard = guard;
                pending().await
            });
        }
        supervisor.stop().await;
        assert_eq!(*ended.lock().unwrap(), ["controllers", "telemetry", "links"]);
    }

    #[tokio::test]
    async fn the_list_of_tasks_is_bounded_by_those_that_run() {
        let supervisor = Supervisor::with_test_panic(None);
        for _ in 0..10 * MIN_PRUNE {
            supervisor.spawn_job("short", async {});
            tokio::task::yield_now().await;
        }
        assert!(supervisor.0.tasks().running.len() <= MIN_PRUNE);
    }

    #[tokio::test]
    async fn the_test_hook_makes_the_named_task_panic() {
        let supervisor = Supervisor::with_test_panic(Some("expiry".to_owned()));
        supervisor.spawn_loop("failover", pending());
        assert!(!has_failed(&supervisor).await);
        supervisor.spawn_loop("expiry", pending());
        let expected = format!("task expiry panicked: {TEST_PANIC_VARIABLE} names this task");
        assert_eq!(failure(&supervisor).await, expected);
        let supervisor = Supervisor::with_test_panic(Some("journal".to_owned()));
        let thread = supervisor.spawn_thread("journal", || {}).unwrap();
        assert!(failure(&supervisor).await.starts_with("task journal panicked"));
        thread.join().unwrap();
    }
}
