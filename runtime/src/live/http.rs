//! The server of the live page: one run's state, over HTTP on loopback, to be read and never written.
//!
//! Whoever can open a page in the user's browser, and anyone who can reach the port, is taken for hostile:
//! - there is a fixed list of paths; none of them is turned into a file's name;
//! - the names `localhost` and loopback addresses are the only hosts, so that a name that was made to point here (DNS
//!   rebinding) gets nothing; another origin gets nothing; on another address than loopback, nothing without the token;
//! - the page may load its own files and nothing else, and no other page may hold it in a frame;
//! - a client has seconds to ask, may not ask at length, and is dropped when it takes nothing; of those that do not ask,
//!   the oldest goes when there are too many. Everything runs on one thread beside the one that reads the events, and
//!   neither is one of the run's.

use crate::live::source::Source;
use crate::live::update::{Cursor, update};
use anyhow::{Context as _, Result};
use http_body_util::channel::{Channel, Sender};
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Connections at a time.
const CONNECTIONS: usize = 256;
/// Pages that follow the run at a time.
const STREAMS: usize = 32;
/// To send a request in full.
const ASK: Duration = Duration::from_secs(5);
/// To take a byte of what was asked for.
const TAKE: Duration = Duration::from_secs(10);
/// To take an answer in full; following the run may take longer.
const WHOLE: Duration = Duration::from_secs(120);
/// Bytes of a request at most.
const HEAD: usize = 16 << 10;
/// Between two looks at the record.
const LOOK: Duration = Duration::from_millis(25);
/// Between two messages to a page.
const PACE: Duration = Duration::from_millis(50);
/// A page that hears nothing so long is told that the server is there.
const BEAT: Duration = Duration::from_secs(5);
/// The port, if it is free.
const PORT: u16 = 8710;

const PAGE: &str = include_str!("page/live.html");
const SCRIPT: &str = include_str!("page/live.js");
const STYLE: &str = include_str!("page/live.css");

/// What the page may do.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; frame-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// What the finished summary may do: its own scripts and styles stand in it, it loads nothing, and it is of no origin,
/// so that it cannot ask this server for anything.
const SUMMARY_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; frame-ancestors 'self'; base-uri 'none'; form-action 'none'; sandbox allow-scripts allow-downloads allow-popups allow-modals";

/// How to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address.
    pub bind: IpAddr,
    /// The port; without, the usual one, or any that is free.
    pub port: Option<u16>,
    /// Whether a token is asked for on loopback too.
    pub token: bool,
    /// End when the run has, and no page has followed it for so long.
    pub linger: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self { bind: Ipv4Addr::LOCALHOST.into(), port: None, token: false, linger: None }
    }
}

struct Server {
    source: Mutex<Source>,
    changes: watch::Receiver<u64>,
    address: SocketAddr,
    token: Option<String>,
    streams: AtomicUsize,
    /// When a page was last here.
    visited: Mutex<Instant>,
    /// Connections that have not asked for anything yet, oldest first.
    waiting: Mutex<BTreeMap<u64, AbortHandle>>,
}

type Body = Either<Full<Bytes>, Channel<Bytes, Infallible>>;

/// The lock, whoever panicked while holding it: what it guards is only shown.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Serves until the process is told to end. `ready` gets the address to open, once it answers.
///
/// # Errors
/// The address cannot be had.
pub fn serve(source: Source, options: &Options, ready: impl FnOnce(&str)) -> Result<()> {
    let listener = listen(options)?;
    let address = listener.local_addr()?;
    let token = (options.token || !options.bind.is_loopback()).then(token).transpose()?;
    let shown = if address.ip().is_unspecified() {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port())
    } else {
        address
    };
    let query = token.as_ref().map(|token| format!("?token={token}")).unwrap_or_default();
    let (send, changes) = watch::channel(0);
    let server = Arc::new(Server {
        source: Mutex::new(source),
        changes,
        address,
        token,
        streams: AtomicUsize::new(0),
        visited: Mutex::new(Instant::now()),
        waiting: Mutex::new(BTreeMap::new()),
    });
    let reader = server.clone();
    let linger = options.linger;
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    std::thread::Builder::new().name("events".into()).spawn(move || {
        let mut changes = 0;
        loop {
            let over = {
                let mut source = lock(&reader.source);
                if source.look() {
                    changes += 1;
                    let _ = send.send(changes);
                }
                source.generation > 0 && (source.live.end.is_some() || source.live.killed)
            };
            let left = reader.streams.load(Ordering::Relaxed) == 0;
            if left && over && linger.is_some_and(|linger| lock(&reader.visited).elapsed() > linger) {
                let _ = end.send(());
                return;
            }
            std::thread::sleep(LOOK);
        }
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        ready(&format!("http://{shown}/{query}"));
        tokio::select! {
            () = accept(&server, &listener) => {}
            _ = ended => {}
        }
        Ok(())
    })
}

fn listen(options: &Options) -> Result<std::net::TcpListener> {
    let bind = |port: u16| std::net::TcpListener::bind(SocketAddr::new(options.bind, port));
    let listener = match options.port {
        Some(port) => bind(port).with_context(|| format!("{} port {port} cannot be listened at", options.bind))?,
        None => bind(PORT).or_else(|_| bind(0)).with_context(|| format!("{} cannot be listened at", options.bind))?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// 128 random bits.
fn token() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random numbers for a token: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

async fn accept(server: &Arc<Server>, listener: &TcpListener) {
    let open = Arc::new(AtomicUsize::new(0));
    for number in 0_u64.. {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                // Out of file descriptors, for instance: some of those who hold them leave.
                drop_oldest(server);
                tokio::time::sleep(LOOK).await;
                continue;
            }
        };
        if open.load(Ordering::Relaxed) >= CONNECTIONS && !drop_oldest(server) {
            // All of them asked for something and take it; one more has to come back.
            continue;
        }
        open.fetch_add(1, Ordering::Relaxed);
        let left = Leave(open.clone());
        let (server_of_it, asked) = (server.clone(), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn(async move {
            let _left = left;
            let waits = Waits { number, server: &server_of_it };
            connection(&server_of_it, stream, &waits, &asked).await;
        });
        // On one thread, it does not begin before it is noted.
        lock(&server.waiting).insert(number, task.abort_handle());
    }
}

/// Drops the connection that has waited longest without asking; whether there is one.
fn drop_oldest(server: &Server) -> bool {
    let oldest = lock(&server.waiting).pop_first();
    oldest.inspect(|(_, task)| task.abort()).is_some()
}

/// Counts a connection until it ends, however it does.
struct Leave(Arc<AtomicUsize>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that has not asked yet.
struct Waits<'a> {
    number: u64,
    server: &'a Server,
}

impl Waits<'_> {
    fn no_more(&self) {
        lock(&self.server.waiting).remove(&self.number);
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.no_more();
    }
}

async fn connection(server: &Arc<Server>, stream: TcpStream, waits: &Waits<'_>, follows: &Arc<AtomicBool>) {
    let _ = stream.set_nodelay(true);
    let mut stream = Box::pin(tokio_io_timeout::TimeoutStream::new(stream));
    stream.as_mut().set_write_timeout_pinned(Some(TAKE));
    let service = service_fn(|request: Request<Incoming>| {
        waits.no_more();
        let response = answer(server, &request, follows);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    // One question for each connection: an idle one is never worth its place.
    http.timer(TokioTimer::new()).header_read_timeout(ASK).keep_alive(false).max_buf_size(HEAD).max_headers(64);
    let mut served = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    // What becomes of one client is its own matter.
    while tokio::time::timeout(WHOLE, served.as_mut()).await.is_err() {
        if !follows.load(Ordering::Relaxed) {
            break;
        }
    }
}

/// Why a request gets nothing.
fn refused(server: &Server, request: &Request<Incoming>) -> Option<(StatusCode, &'static str)> {
    let headers = request.headers();
    let one = |name: header::HeaderName| {
        let mut all = headers.get_all(name).iter();
        let first = all.next().and_then(|value| value.to_str().ok());
        if all.next().is_some() { None } else { first }
    };
    let Some(host) = one(header::HOST) else {
        return Some((StatusCode::BAD_REQUEST, "a request names one host"));
    };
    // The form with the host in the first line must say the same.
    if request.uri().authority().is_some_and(|authority| authority.as_str() != host) || !is_ours(server, host) {
        return Some((
            StatusCode::MISDIRECTED_REQUEST,
            "this server has no such name; open the address that it printed",
        ));
    }
    if headers.contains_key(header::ORIGIN) && one(header::ORIGIN) != Some(&format!("http://{host}")) {
        return Some((StatusCode::FORBIDDEN, "another page may not read this one"));
    }
    // Following a link to the page is fine from anywhere.
    let site = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
    if site.is_some_and(|site| !matches!(site, "same-origin" | "none")) && !opens_the_page(request) {
        return Some((StatusCode::FORBIDDEN, "another page may not read this one"));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Some((StatusCode::METHOD_NOT_ALLOWED, "this server is for reading"));
    }
    None
}

fn opens_the_page(request: &Request<Incoming>) -> bool {
    let mode = request.headers().get("sec-fetch-mode").and_then(|value| value.to_str().ok());
    let into = request.headers().get("sec-fetch-dest").and_then(|value| value.to_str().ok());
    request.uri().path() == "/" && mode == Some("navigate") && into == Some("document")
}

/// Whether a name is one of this server: an address (which nobody can make point elsewhere), `localhost`, and where it
/// listens to others too, the machine's name. The port is whatever a tunnel made of it.
fn is_ours(server: &Server, host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address: Option<IpAddr> = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name).parse().ok();
    let loopback = name.eq_ignore_ascii_case("localhost") || address.is_some_and(|address| address.is_loopback());
    let machine = || name.eq_ignore_ascii_case(&crate::run::host());
    loopback || !server.address.ip().is_loopback() && (address.is_some() || machine())
}

/// The token that a request brings: as a cookie, as a header, or in the address of the page.
fn bears(server: &Server, request: &Request<Incoming>, token: &str) -> (bool, bool) {
    let same = |found: &str| bool::from(found.as_bytes().ct_eq(token.as_bytes()));
    let headers =
        |name: header::HeaderName| request.headers().get_all(name).into_iter().filter_map(|v| v.to_str().ok());
    let cookie = cookie(server);
    let mut cookies =
        headers(header::COOKIE).flat_map(|all| all.split(';')).filter_map(|one| one.trim().split_once('='));
    let by_cookie = cookies.any(|(name, value)| name == cookie && same(value));
    let by_header = headers(header::AUTHORIZATION).any(|value| value.strip_prefix("Bearer ").is_some_and(same));
    let mut query = request.uri().query().unwrap_or_default().split('&').filter_map(|part| part.split_once('='));
    (by_cookie || by_header, query.any(|(name, value)| name == "token" && same(value)))
}

/// Servers at several ports of a host share its cookies, so each has a name of its own.
fn cookie(server: &Server) -> String {
    format!("harness-{}", server.address.port())
}

fn answer(server: &Arc<Server>, request: &Request<Incoming>, follows: &AtomicBool) -> Response<Body> {
    let mut response = match refused(server, request) {
        Some((status, why)) => text(status, why),
        None => allowed(server, request, follows),
    };
    let headers = response.headers_mut();
    let always = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    always.into_iter().for_each(|(name, value)| set(headers, name, value));
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        set(headers, header::CONTENT_SECURITY_POLICY, POLICY);
        set(headers, header::X_FRAME_OPTIONS, "DENY");
    }
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        set(response.headers_mut(), header::ALLOW, "GET, HEAD");
    }
    response
}

fn set(headers: &mut HeaderMap, name: header::HeaderName, value: &'static str) {
    headers.insert(name, HeaderValue::from_static(value));
}

fn allowed(server: &Arc<Server>, request: &Request<Incoming>, follows: &AtomicBool) -> Response<Body> {
    if let Some(token) = &server.token {
        let (known, asks) = bears(server, request, token);
        if asks && request.uri().path() == "/" {
            // The token moves from the address, which is seen and kept, into a cookie, which is not.
            let mut response = text(StatusCode::SEE_OTHER, "");
            set(response.headers_mut(), header::LOCATION, "/");
            let value = format!("{}={token}; HttpOnly; SameSite=Strict; Path=/", cookie(server));
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(header::SET_COOKIE, value);
            }
            return response;
        }
        if !known {
            return text(StatusCode::UNAUTHORIZED, "open the address with the token that `harness serve` printed");
        }
    }
    *lock(&server.visited) = Instant::now();
    match request.uri().path() {
        "/" => body("text/html; charset=utf-8", PAGE),
        "/live.js" => body("text/javascript; charset=utf-8", SCRIPT),
        "/live.css" => body("text/css; charset=utf-8", STYLE),
        "/state.json" => {
            let state = update(&lock(&server.source), &mut Cursor::default()).unwrap_or_default();
            body("application/json", state.to_string())
        }
        "/summary.html" => summary(server),
        "/events" if request.method() == Method::GET => events(server, follows),
        "/events" => text(StatusCode::METHOD_NOT_ALLOWED, "events are for GET"),
        _ => text(StatusCode::NOT_FOUND, "there is nothing here"),
    }
}

fn body(kind: &'static str, content: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(content.into())));
    set(response.headers_mut(), header::CONTENT_TYPE, kind);
    response
}

fn text(status: StatusCode, content: &'static str) -> Response<Body> {
    let mut response = body("text/plain; charset=utf-8", content);
    *response.status_mut() = status;
    response
}

/// The page that the run left, once it has ended.
fn summary(server: &Server) -> Response<Body> {
    let path = lock(&server.source).dir.as_ref().map(|dir| dir.join("summary.html"));
    match path.and_then(|path| std::fs::read(path).ok()) {
        Some(page) => {
            let mut response = body("text/html; charset=utf-8", page);
            set(response.headers_mut(), header::CONTENT_SECURITY_POLICY, SUMMARY_POLICY);
            response
        }
        None => text(StatusCode::NOT_FOUND, "the run has left no summary yet"),
    }
}

/// One more page that follows the run, until it leaves.
struct Stream(Arc<Server>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
        *lock(&self.0.visited) = Instant::now();
    }
}

fn events(server: &Arc<Server>, follows: &AtomicBool) -> Response<Body> {
    let before = server.streams.fetch_add(1, Ordering::Relaxed);
    let stream = Stream(server.clone());
    if before >= STREAMS {
        return text(StatusCode::SERVICE_UNAVAILABLE, "too many pages follow this run; close some");
    }
    follows.store(true, Ordering::Relaxed);
    // A page that is slow is sent less often, and then all that is new: nothing is put by for it.
    let (send, body) = Channel::new(1);
    tokio::spawn(follow(stream, send));
    let mut response = Response::new(Either::Right(body));
    set(response.headers_mut(), header::CONTENT_TYPE, "text/event-stream");
    response
}

/// Sends what is new, as it comes.
async fn follow(stream: Stream, mut send: Sender<Bytes, Infallible>) {
    let server = &stream.0;
    let mut changes = server.changes.clone();
    let mut cursor = Cursor::default();
    loop {
        let message = update(&lock(&server.source), &mut cursor);
        let message = message.map_or_else(|| ": here\n\n".to_string(), |message| format!("data: {message}\n\n"));
        if send.send_data(message.into()).await.is_err() {
            return;
        }
        tokio::time::sleep(PACE).await;
        let _ = tokio::time::timeout(BEAT, changes.changed()).await;
    }
}
