//! The thread that writes the log: whoever logs hands an event over and goes on.
//!
//! ```text
//!   loops, tasks, libraries ─▶ bounded queue ─▶ [repeats] ─▶ file, then standard error
//! ```
//!
//! Invariants: nobody who logs ever waits for a disk, a full pipe or a terminal; what the queue has no room for is counted, and the count is told; lines are in the order
//! of the queue.

use std::io::{self, IsTerminal as _, Stderr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Level;

use super::event::Event;
use super::file::LogFile;
use super::line::{Look, line};
use super::repeats::Repeats;
use super::stream::{Put, Stream};
use super::tally::Tally;

/// Events that wait to be written. A flood of more than this is not read by anybody.
const QUEUE: usize = 4096;
/// How often it is looked whether the file is still there and a count is due.
const TICK: Duration = Duration::from_secs(1);
/// The thread's name.
pub(super) const THREAD: &str = "log";

/// What lines look like and where they go, besides standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) look: Look,
    pub(super) file: Option<PathBuf>,
    pub(super) interval: Duration,
}

enum Work {
    Event(Event),
    /// From now on.
    Output(Output),
    /// Open the file anew.
    Reopen(SyncSender<()>),
    /// Write all that came before.
    Flush(SyncSender<()>),
}

/// What is known of the log from outside.
#[derive(Debug, Default)]
struct Shared {
    lost: AtomicU64,
    tally: Tally,
    fault: Mutex<Option<String>>,
}

/// The way to the thread; clones share it. The thread ends when all are gone.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    queue: SyncSender<Work>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Work")
    }
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(output: Output) -> io::Result<Self> {
        let (queue, work) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let mut thread = Thread::new(output, Arc::clone(&shared));
        // A file that cannot be opened is known before anything else begins.
        thread.show_fault();
        std::thread::Builder::new()
            .name(THREAD.to_owned())
            .spawn(move || thread.run(&work))?;
        Ok(Self { queue, shared })
    }

    /// Hands an event over.
    pub(super) fn take(&self, event: Event) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Work::Event(event)) {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            self.shared.tally.no_room_in_queue();
        }
    }

    /// What became of the lines so far.
    pub(super) fn tally(&self) -> &Tally {
        &self.shared.tally
    }

    /// From now on lines are written like this.
    pub(super) fn set(&self, output: Output) {
        let _ = self.queue.send(Work::Output(output));
    }

    /// Opens the file anew, and waits until that is done, at most for `patience`.
    pub(super) fn reopen(&self, patience: Duration) {
        self.wait(Work::Reopen, patience);
    }

    /// Waits until what was logged is written, at most for `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        self.wait(Work::Flush, patience);
    }

    fn wait(&self, work: fn(SyncSender<()>) -> Work, patience: Duration) {
        let (done, until) = sync_channel(1);
        let deadline = Instant::now() + patience;
        let mut work = work(done);
        // The queue may be full of what cannot be written: that is waited for no longer than the rest.
        while let Err(TrySendError::Full(back)) = self.queue.try_send(work) {
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
            work = back;
        }
        let _ = until.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }

    /// Why the file cannot be written, while it cannot.
    pub(super) fn fault(&self) -> Option<String> {
        let fault = self.shared.fault.lock();
        fault.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Thread {
    output: Output,
    file: Option<LogFile>,
    repeats: Repeats,
    shared: Arc<Shared>,
    /// The fault that standard error was told of.
    said: bool,
    error: Stream<Stderr>,
}

impl Thread {
    fn new(output: Output, shared: Arc<Shared>) -> Self {
        Self {
            file: output.file.clone().map(LogFile::open),
            repeats: Repeats::new(output.interval),
            output,
            shared,
            said: false,
            error: Stream::new(io::stderr()),
        }
    }

    fn run(mut self, work: &Receiver<Work>) {
        let mut next = Instant::now() + TICK;
        loop {
            let wait = next.saturating_duration_since(Instant::now());
            match work.recv_timeout(wait) {
                Ok(Work::Event(event)) => {
                    let told = self.repeats.take(event, Instant::now());
                    self.tell(&told);
                }
                Ok(Work::Output(output)) => self.set(output),
                Ok(Work::Reopen(done)) => {
                    if let Some(file) = &mut self.file {
                        file.reopen();
                    }
                    self.tick();
                    let _ = done.try_send(());
                }
                Ok(Work::Flush(done)) => {
                    let told = self.repeats.all(Instant::now());
                    self.tell(&told);
                    self.tell_lost();
                    let _ = done.try_send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= next {
                next = Instant::now() + TICK;
                self.tick();
            }
        }
    }

    fn set(&mut self, output: Output) {
        self.repeats.set_interval(output.interval);
        if self.output.file != output.file {
            self.file = output.file.clone().map(LogFile::open);
            self.said = false;
        }
        self.output = output;
        self.tick();
    }

    fn tick(&mut self) {
        let told = self.repeats.due(Instant::now());
        self.tell(&told);
        self.tell_lost();
        let look = self.output.look;
        if let Some(file) = &mut self.file {
            file.follow();
            file.recover(&|missing| again(look, missing));
        }
        self.show_fault();
    }

    fn tell(&mut self, events: &[Event]) {
        for event in events {
            self.write(event);
        }
        if !events.is_empty() {
            self.show_fault();
        }
    }

    fn tell_lost(&mut self) {
        let lost = self.shared.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let text = format!("{lost} log lines are lost: more was logged than could be written");
            self.write(&Event::of_ours(Level::WARN, text));
        }
    }

    fn write(&mut self, event: &Event) {
        let look = self.output.look;
        if let Some(file) = &mut self.file {
            let plain = line(
                event,
                Look {
                    colour: false,
                    ..look
                },
            );
            let written = file.write(&plain, &|missing| again(look, missing));
            self.shared.tally.of_file(written);
        }
        self.say(&line(event, look));
    }

    /// Standard error: a pipe that nobody reads holds nobody up, and a closed one has nobody to tell.
    fn say(&mut self, text: &str) {
        let look = self.output.look;
        let put = self.error.line(text, &|missed| {
            let text = format!("{missed} log lines are lost here: nobody read standard error");
            line(&Event::of_ours(Level::WARN, text), look)
        });
        match put {
            Put::Written => self.shared.tally.of_stderr(true),
            Put::NoRoom => self.shared.tally.of_stderr(false),
            Put::Failed => self.shared.tally.stderr_failed(),
        }
    }

    /// Health shows a fault of the file, and standard error says it once.
    fn show_fault(&mut self) {
        let fault = self.file.as_ref().and_then(LogFile::fault);
        if let (Some(sentence), false) = (&fault, self.said) {
            let event = Event::of_ours(Level::ERROR, sentence.clone());
            self.say(&line(&event, self.output.look));
        }
        if let (None, true, Some(file)) = (&fault, self.said, &self.file) {
            let text = format!("the log file {} is written again", file.path().display());
            let event = Event::of_ours(Level::INFO, text);
            self.say(&line(&event, self.output.look));
        }
        self.said = fault.is_some();
        let mut shown = self
            .shared
            .fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *shown = fault;
    }
}

/// The first line that gets through.
fn again(look: Look, missing: u64) -> String {
    let text =
        format!("the log file is written again; {missing} lines are missing before this one");
    let look = Look {
        colour: false,
        ..look
    };
    line(&Event::of_ours(Level::WARN, text), look)
}

/// Whether levels are coloured.
pub(super) fn colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
