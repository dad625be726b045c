//! The console's thread: operators' sessions and HTTP, apart from the workers, so that no question disturbs a client.
//!
//! Its sessions log in as all others do, on a worker, which then hands the connection over. They count towards no limit of
//! clients, and they outlive a drain: whoever waits for its end wants to see it.

mod control;
mod explain;
mod login;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use pgweir_admin::{Control, Phase};
use pgweir_net::{StdStream, Stream};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle as Task;

use crate::cancel::Slots;
use crate::fault::Fault;
use crate::proxy::Shared;

use self::control::Steering;
use self::login::rights;
pub(crate) use self::login::{hand_over, is_meant};

/// Operators at once. Chosen: people, exporters and a few dashboards; a script that forgets to close meets the limit and not
/// the memory.
const VISITORS_LIMIT: usize = 200;

/// How long an address may take to be found and listened on.
const BIND_LIMIT: Duration = Duration::from_millis(500);

/// How often an address is tried again that could not be listened on.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// A note for the console's thread.
#[derive(Debug)]
pub(crate) enum ConsoleMail {
    /// Somebody has logged in to it.
    Visitor(Box<Visitor>),
    /// A CancelRequest for one of them.
    Cancel {
        /// The process ID that was given out.
        process_id: u32,
        /// The secret that the request carries.
        secret: Box<[u8]>,
        /// Dropped when the request has been dealt with.
        done: oneshot::Sender<()>,
    },
    /// The configuration was replaced.
    ConfigChanged,
}

/// Somebody who has logged in.
#[derive(Debug)]
pub(crate) struct Visitor {
    pub(crate) stream: StdStream,
    pub(crate) user: Arc<str>,
    pub(crate) database: Arc<str>,
    /// Those of the startup packet.
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) secret: Box<[u8]>,
}

/// What the other threads hold of it.
#[derive(Debug)]
pub(crate) struct ConsoleHandle(UnboundedSender<ConsoleMail>);

impl ConsoleHandle {
    /// Returns one, and where its notes arrive.
    pub(crate) fn new() -> (Self, UnboundedReceiver<ConsoleMail>) {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        (ConsoleHandle(sender), receiver)
    }

    /// Leaves a note. When the proxy ends nobody reads it any more.
    pub(crate) fn send(&self, mail: ConsoleMail) {
        let _gone = self.0.send(mail);
    }
}

/// Starts the thread.
pub(crate) fn spawn(
    shared: Arc<Shared>,
    mail: UnboundedReceiver<ConsoleMail>,
) -> Result<JoinHandle<()>, std::io::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("pgweir-console".to_owned())
        .spawn(move || {
            let tasks = tokio::task::LocalSet::new();
            let console = Rc::new(Console::new(shared));
            tasks.block_on(&runtime, console.serve(mail));
            // Who is still there is disconnected with the runtime; a statement that computes is not waited for.
            drop(tasks);
            runtime.shutdown_background();
        })
}

/// The thread's own state.
struct Console {
    shared: Arc<Shared>,
    control: Arc<dyn Control>,
    desk: Arc<pgweir_admin::console::Desk>,
    /// Who can be cancelled, by process ID.
    visitors: RefCell<BTreeMap<u32, Cancelable>>,
    next: Cell<u32>,
    http: RefCell<Option<Http>>,
    /// The address that was complained of last.
    refused: RefCell<Option<(Arc<str>, u16)>>,
}

/// What a CancelRequest needs.
struct Cancelable {
    user: Arc<str>,
    may_change: bool,
    /// Ends the session.
    dismiss: Arc<Notify>,
    secret: Box<[u8]>,
    cancel: watch::Sender<u64>,
}

/// What is served over HTTP now.
struct Http {
    /// Where, as configured.
    listen: (Arc<str>, u16),
    task: Task<()>,
}

impl Console {
    fn new(shared: Arc<Shared>) -> Self {
        Console {
            control: Arc::new(Steering::new(Arc::clone(&shared))),
            shared,
            desk: Arc::default(),
            visitors: RefCell::default(),
            next: Cell::new(1),
            http: RefCell::new(None),
            refused: RefCell::new(None),
        }
    }

    /// Serves until the proxy stops.
    async fn serve(self: Rc<Self>, mut mail: UnboundedReceiver<ConsoleMail>) {
        let mut phase = self.shared.phase.subscribe();
        // The proxy may have been told to stop before this thread listened.
        phase.mark_changed();
        self.follow_http().await;
        let mut retry = tokio::time::interval(RETRY_PERIOD);
        loop {
            tokio::select! {
                received = mail.recv() => match received {
                    Some(note) => self.on_mail(note).await,
                    None => return,
                },
                _ = retry.tick() => self.follow_http().await,
                () = stopping(&mut phase) => return,
            }
        }
    }

    async fn on_mail(self: &Rc<Self>, note: ConsoleMail) {
        match note {
            ConsoleMail::Visitor(visitor) => self.welcome(*visitor),
            ConsoleMail::Cancel {
                process_id,
                secret,
                done,
            } => {
                self.cancel(process_id, &secret);
                drop(done);
            }
            ConsoleMail::ConfigChanged => {
                self.dismiss();
                self.follow_http().await;
            }
        }
    }

    /// Begins a session.
    fn welcome(self: &Rc<Self>, visitor: Visitor) {
        let Visitor {
            stream,
            user,
            database,
            parameters,
            secret,
        } = visitor;
        let stream = match Stream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot take over a connection to the console");
                return;
            }
        };
        if self.visitors.borrow().len() >= VISITORS_LIMIT {
            tracing::warn!(%user, limit = VISITORS_LIMIT, "too many connections to the console");
            let full = Fault::too_many_operators(VISITORS_LIMIT);
            drop(tokio::task::spawn_local(turn_away(stream, full)));
            return;
        }
        // Here and not where he logged in: what is taken from him later arrives on this thread, too.
        let Some(may_change) = rights(&self.shared, &user) else {
            let stranger = Fault::no_operator(&user);
            drop(tokio::task::spawn_local(turn_away(stream, stranger)));
            return;
        };
        let (canceling, cancel) = watch::channel(0);
        let dismiss = Arc::new(Notify::new());
        let process_id = self.give_out(Cancelable {
            user: Arc::clone(&user),
            may_change,
            dismiss: Arc::clone(&dismiss),
            secret: secret.clone(),
            cancel: canceling,
        });
        let session = pgweir_admin::console::Session {
            user,
            may_change,
            database,
            parameters,
            process_id,
            secret: secret.into(),
            cancel,
            desk: Arc::clone(&self.desk),
        };
        let (console, control) = (Rc::clone(self), Arc::clone(&self.control));
        drop(tokio::task::spawn_local(async move {
            let serving = async {
                use pgweir_admin::console::serve;
                match stream {
                    Stream::Tcp(stream) => serve(stream, session, control).await,
                    Stream::Unix(stream) => serve(stream, session, control).await,
                }
            };
            tokio::select! {
                () = serving => {}
                () = dismiss.notified() => {}
            }
            console.visitors.borrow_mut().remove(&process_id);
        }));
    }

    /// Ends the sessions of those who may do less by now than when they came.
    fn dismiss(&self) {
        for visitor in self.visitors.borrow().values() {
            let rights = rights(&self.shared, &visitor.user);
            if rights.is_none_or(|may_change| visitor.may_change && !may_change) {
                let user = &*visitor.user;
                tracing::info!(user, "a session on the console ends: its rights were taken");
                visitor.dismiss.notify_one();
            }
        }
    }

    fn give_out(&self, cancelable: Cancelable) -> u32 {
        let mut visitors = self.visitors.borrow_mut();
        // As a worker beyond the last one would.
        let worker = self.shared.workers().len();
        let process_id = loop {
            let id = Slots::process_id(worker, self.next.get());
            self.next.set(self.next.get().wrapping_add(1));
            if !visitors.contains_key(&id) {
                break id;
            }
        };
        visitors.insert(process_id, cancelable);
        process_id
    }

    fn cancel(&self, process_id: u32, secret: &[u8]) {
        let visitors = self.visitors.borrow();
        if let Some(visitor) = visitors.get(&process_id)
            && bool::from(visitor.secret.ct_eq(secret))
        {
            visitor.cancel.send_modify(|count| *count += 1);
        }
    }

    /// Serves HTTP where the configuration says now.
    async fn follow_http(self: &Rc<Self>) {
        let wanted = self.shared.config.load().http.listen.clone();
        let served = (self.http.borrow().as_ref()).map(|http| http.listen.clone());
        if served == wanted {
            return;
        }
        let old = self.http.borrow_mut().take();
        if let Some(http) = old {
            http.task.abort();
            // Its socket is closed only then, and may be in the way of the next.
            let _ended = http.task.await;
        }
        let Some(listen) = wanted else { return };
        let (host, port) = (&*listen.0, listen.1);
        // A name that nobody answers for must not hold up those who log in.
        let bound = tokio::time::timeout(BIND_LIMIT, TcpListener::bind((host, port))).await;
        match bound.unwrap_or_else(|late| Err(late.into())) {
            Ok(listener) => {
                self.refused.replace(None);
                let bound = listener.local_addr().map_or(port, |address| address.port());
                tracing::info!("serving metrics and the page on http://{host}:{bound}/");
                let control = Arc::clone(&self.control);
                let task = tokio::task::spawn_local(pgweir_admin::http::serve(listener, control));
                self.http.replace(Some(Http { listen, task }));
            }
            // Tried again all the while; said once.
            Err(error) => {
                if self.refused.replace(Some(listen.clone())) != Some(listen.clone()) {
                    tracing::warn!(%error, host, port, "no metrics and no page: the address cannot be listened on");
                }
            }
        }
    }
}

/// Tells somebody why he does not get in.
async fn turn_away(mut stream: Stream, fault: Fault) {
    let mut bytes = Vec::new();
    fault.encode(&mut bytes);
    // Whoever does not listen does not hear it.
    let _heard = tokio::time::timeout(RETRY_PERIOD, stream.write_all(&bytes)).await;
}

/// Returns when the proxy stops.
async fn stopping(phase: &mut watch::Receiver<Phase>) {
    // An error means that the proxy is gone.
    let _gone = phase.wait_for(|phase| *phase == Phase::Stopping).await;
}
