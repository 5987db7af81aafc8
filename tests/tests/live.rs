//! What follows a run: the live page and its server, the full screen, and curves for TensorBoard.

use harness_tests::Test;
use harness_tests::browser::Browser;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take: far more than it does.
const PATIENCE: Duration = Duration::from_secs(60);

/// A step that ends once a file is there, one after it, and one whose name is made to do harm.
fn gated(test: &Test) -> String {
    let gate = test.path().join("go");
    format!(
        r#"
let text = {{ text = {{ kind = file, path = "out" }} }}
command gate {{ run = ["sh", "-c", "echo before the gate; while [ ! -e {} ]; do sleep 0.05; done; echo gate > out"], outputs = text }}
for letter in ["<script>alert(1)</script>", "b", "c"] {{
    command after {{ run = ["sh", "-c", "cat inputs/g; echo '{{\"v\": 2}}' > metrics.json"], env = {{ L = letter }}, inputs = {{ g = gate.text }}, metrics = ["v"] }}
}}
claim "numbers are <b>numbers</b>" {{ after["b"].v > 1 }}
"#,
        gate.display()
    )
}

/// `harness serve`, and where it answers.
struct Served {
    child: Child,
    address: SocketAddr,
    url: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    fn start(test: &Test, arguments: &[&str]) -> Self {
        let all: Vec<&str> = ["serve"].iter().chain(arguments).copied().chain(["--port", "0"]).collect();
        let mut child = test.start(&all);
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let url = url.trim().to_string();
        let address = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).map(str::parse);
        let address = address.unwrap_or_else(|| panic!("no address in `{url}`")).unwrap();
        Self { child, address, url }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The answer to these bytes, up to where the server closes. It may refuse before it has read all of them.
    fn say(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The answer to a request for a path with more lines of a head.
    fn get(&self, path: &str, more: &str) -> String {
        self.say(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{more}\r\n", self.address).as_bytes())
    }

    fn state(&self) -> Value {
        let answer = self.get("/state.json", "");
        let body = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}")).1;
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    fn standing(&self) -> String {
        self.state()["head"]["standing"].as_str().unwrap_or_default().into()
    }
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

fn wait_until(what: &str, mut there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !there() {
        assert!(start.elapsed() < PATIENCE, "{what} never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_server_gives_its_run_and_nothing_else() {
    let test = Test::new().file("a.exp", "command a { run = [\"true\"] }\n").file("secret", "SECRET");
    test.harness(&["run", "a.exp"]).code(0);
    let served = Served::start(&test, &["a.exp"]);
    for path in ["/", "/live.js", "/live.css", "/state.json", "/summary.html"] {
        let answer = served.get(path, "");
        assert_eq!(status(&answer), 200, "{path}: {answer}");
        for line in ["content-security-policy: default-src 'none'", "x-content-type-options: nosniff", "no-referrer"] {
            assert!(answer.contains(line), "{path} lacks {line}: {answer}");
        }
    }
    for path in [
        "/../secret",
        "/../../../../../../etc/passwd",
        "/..%2fsecret",
        "/%2e%2e/secret",
        "/live.js/../../secret",
        "/summary.html/",
        "//summary.html",
        "/./summary.html",
        "/summary.html%00",
        "/events.jsonl",
        "/source.exp",
        "/run.json",
        "/Summary.html",
        "/\\..\\secret",
    ] {
        let answer = served.get(path, "");
        assert!(matches!(status(&answer), 400 | 404) && !answer.contains("SECRET"), "{path}: {answer}");
    }
    // The finished page cannot reach the server that it comes from.
    assert!(served.get("/summary.html", "").contains("sandbox allow-scripts"));
    let head = served.say(format!("HEAD / HTTP/1.1\r\nHost: {}\r\n\r\n", served.address).as_bytes());
    assert!(status(&head) == 200 && head.ends_with("\r\n\r\n"), "{head}");
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW"] {
        let answer = served
            .say(format!("{method} / HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\r\n", served.address).as_bytes());
        assert_eq!(status(&answer), 405, "{method}: {answer}");
    }
    // Nobody talks a WebSocket here.
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    assert_eq!(status(&served.get("/", upgrade)), 200);
}

#[test]
fn another_name_and_another_origin_get_nothing() {
    let test = Test::new().file("a.exp", "command a { run = [\"true\"] }\n");
    test.harness(&["run", "a.exp"]).code(0);
    let served = Served::start(&test, &["a.exp"]);
    let port = served.address.port();
    let named =
        |host: &str| status(&served.say(format!("GET /state.json HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()));
    for host in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        "localhost".into(),
        "[::1]:8000".into(),
        "LOCALHOST:1".into(),
    ] {
        assert_eq!(named(&host), 200, "{host}");
    }
    for host in [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "192.168.0.1",
        "0.0.0.0",
        "[::]",
        "2130706433",
        "127.0.0.1@evil.example",
        "localhost:80:80",
    ] {
        assert_eq!(named(host), 421, "{host}");
    }
    assert_eq!(status(&served.say(b"GET / HTTP/1.1\r\n\r\n")), 400, "no host");
    assert_eq!(status(&served.say(b"GET / HTTP/1.0\r\n\r\n")), 400, "no host, as of old");
    let two = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil.example\r\n\r\n");
    assert_eq!(status(&served.say(two.as_bytes())), 400, "two hosts");
    let whole = format!("GET http://evil.example/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    assert_eq!(status(&served.say(whole.as_bytes())), 421, "another host in the first line");
    for (head, code) in [
        (format!("Origin: http://127.0.0.1:{port}\r\n"), 200),
        ("Origin: http://evil.example\r\n".into(), 403),
        ("Origin: null\r\n".into(), 403),
        (format!("Origin: https://127.0.0.1:{port}\r\n"), 403),
        ("Origin: http://127.0.0.1:1\r\n".into(), 403),
        ("Sec-Fetch-Site: same-origin\r\n".into(), 200),
        ("Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: script\r\n".into(), 403),
        ("Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n".into(), 403),
    ] {
        assert_eq!(status(&served.get("/state.json", &head)), code, "{head}");
    }
    // A link from elsewhere may be followed; a frame elsewhere may not hold the page.
    let link = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    assert_eq!(status(&served.get("/", link)), 200);
    assert_eq!(status(&served.get("/", &link.replace("document", "iframe"))), 403);
}

#[test]
fn a_token_is_asked_for_where_it_is_needed() {
    let test = Test::new().file("a.exp", "command a { run = [\"true\"] }\n");
    test.harness(&["run", "a.exp"]).code(0);
    let served = Served::start(&test, &["a.exp", "--token"]);
    let token = served.url.split_once("?token=").expect("the address has a token").1.to_string();
    assert_eq!(token.len(), 32);
    for (path, head) in [
        ("/", String::new()),
        ("/events", String::new()),
        ("/?token=", String::new()),
        ("/?token=00000000000000000000000000000000", String::new()),
        (&format!("/state.json?token={token}"), String::new()),
        ("/state.json", format!("Authorization: Bearer {}\r\n", &token[1..])),
        ("/state.json", format!("Cookie: harness-{}={}x\r\n", served.address.port(), token)),
    ] {
        assert_eq!(status(&served.get(path, &head)), 401, "{path} {head}");
    }
    let first = served.get(&format!("/?token={token}"), "");
    assert_eq!(status(&first), 303, "{first}");
    let cookie = first.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(status(&served.get("/state.json", &format!("Cookie: a=b; {cookie}\r\n"))), 200);
    assert_eq!(status(&served.get("/state.json", &format!("Authorization: Bearer {token}\r\n"))), 200);
    // On every address, and not only to those on this machine: with a token, unasked.
    let open = Served::start(&test, &["a.exp", "--bind", "0.0.0.0"]);
    assert!(open.url.contains("?token="), "{}", open.url);
    assert_eq!(status(&open.get("/state.json", "")), 401);
    assert_eq!(status(&open.get("/state.json", "Host: evil.example\r\n")), 400);
}

#[test]
fn slow_and_broken_clients_are_left_behind() {
    let test = Test::new().file("a.exp", "command a { run = [\"true\"] }\n");
    test.harness(&["run", "a.exp"]).code(0);
    let mut served = Served::start(&test, &["a.exp"]);
    // Many that begin to ask and never end, and many that say nothing.
    let mut held: Vec<TcpStream> = Vec::new();
    for number in 0..600 {
        let Ok(mut stream) = TcpStream::connect(served.address) else { continue };
        if number % 2 == 0 {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: local");
        }
        held.push(stream);
    }
    assert_eq!(served.standing(), "finished", "whoever asks is answered meanwhile");
    // Some follow the run and take nothing of it.
    let mut deaf: Vec<TcpStream> = Vec::new();
    for _ in 0..40 {
        let mut stream = served.connect();
        let _ = stream.write_all(format!("GET /events HTTP/1.1\r\nHost: {}\r\n\r\n", served.address).as_bytes());
        deaf.push(stream);
    }
    assert_eq!(served.standing(), "finished");
    let answers: Vec<u16> = deaf
        .iter_mut()
        .map(|stream| {
            let mut start = [0; 16];
            stream.read_exact(&mut start).unwrap();
            status(&String::from_utf8_lossy(&start))
        })
        .collect();
    assert_eq!(
        answers.iter().filter(|&&code| code == 503).count(),
        8,
        "there is an end to how many follow: {answers:?}"
    );
    // Nonsense, and too much of it.
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"\r\n\r\n\r\n\r\n".to_vec(),
        vec![0; 4096],
        [b"GET /".to_vec(), vec![b'a'; 200_000], b" HTTP/1.1\r\n\r\n".to_vec()].concat(),
        [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; 200_000], b"\r\n\r\n".to_vec()].concat(),
        [b"GET / HTTP/1.1\r\n".to_vec(), b"X: y\r\n".repeat(1000), b"\r\n".to_vec()].concat(),
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
    ] {
        let mut stream = served.connect();
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        assert!(answer.is_empty() || status(&answer) >= 400, "{shown}: {answer}");
    }
    // Those who leave in the middle of an answer.
    for _ in 0..200 {
        let mut stream = TcpStream::connect(served.address).unwrap();
        let _ = stream.write_all(format!("GET /events HTTP/1.1\r\nHost: {}\r\n\r\n", served.address).as_bytes());
        drop(stream);
    }
    assert_eq!(served.standing(), "finished");
    assert!(served.child.try_wait().unwrap().is_none(), "the server goes on");
}

#[test]
fn a_run_is_followed_to_its_end_and_the_next_one_after_it() {
    let test = Test::new();
    test.write("a.exp", gated(&test));
    let served = Served::start(&test, &["a.exp"]);
    assert_eq!(served.standing(), "awaited");
    let mut stream = served.connect();
    stream.write_all(format!("GET /events HTTP/1.1\r\nHost: {}\r\n\r\n", served.address).as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut next = || loop {
        let line = lines.next().expect("the stream goes on").unwrap();
        if let Some(json) = line.strip_prefix("data: ") {
            return serde_json::from_str::<Value>(json).unwrap();
        }
    };
    let run = test.start(&["run", "a.exp"]);
    let (mut resets, mut log, mut done) = (0, String::new(), Vec::new());
    let mut standing = String::new();
    while standing != "finished" {
        let message = next();
        resets += u32::from(message["reset"] == true);
        for line in message["log"].as_array().into_iter().flatten() {
            log += &format!("{}: {}\n", line["label"].as_str().unwrap(), line["text"].as_str().unwrap());
        }
        for step in message["steps"].as_array().into_iter().flatten() {
            if step["standing"] == "done" {
                done.push(step["label"].as_str().unwrap().to_string());
            }
        }
        if log.contains("gate: before the gate") && !test.path().join("go").exists() {
            test.write("go", "");
        }
        standing = message["head"]["standing"].as_str().map_or(standing, String::from);
    }
    assert_eq!((resets, done.len()), (2, 4), "once for nothing, once for the run: {done:?}");
    assert!(run.wait_with_output().unwrap().status.success());
    assert_eq!(status(&served.get("/summary.html", "")), 200);
    // A run that is killed is said to be; the one after it is followed in turn.
    std::fs::remove_file(test.path().join("go")).unwrap();
    let mut killed = test.start(&["run", "a.exp", "--force", "gate"]);
    let first = served.state()["head"]["run"].clone();
    wait_until("the next run", || served.state()["head"]["run"] != first);
    wait_until("its step", || {
        served.state()["steps"].as_array().unwrap().iter().any(|step| step["standing"] == "running")
    });
    killed.kill().unwrap();
    killed.wait().unwrap();
    wait_until("the news of its death", || served.standing() == "killed");
    test.write("go", "");
    test.harness(&["run", "a.exp"]).code(0);
    wait_until("the last run", || served.standing() == "finished");
}

#[test]
fn run_opens_a_page_that_outlives_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let test = Test::new();
    test.write("a.exp", gated(&test));
    test.write("bin/xdg-open", format!("#!/bin/sh\necho \"$1\" > {}\n", test.path().join("opened").display()));
    std::fs::set_permissions(test.path().join("bin/xdg-open"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", test.path().join("bin").display(), std::env::var("PATH").unwrap());
    let mut run = test.command(&["run", "a.exp", "--open"]).env("PATH", path).spawn().unwrap();
    wait_until("the browser", || {
        std::fs::read_to_string(test.path().join("opened")).is_ok_and(|url| url.ends_with('\n'))
    });
    let url = std::fs::read_to_string(test.path().join("opened")).unwrap();
    let address: SocketAddr = url.trim().strip_prefix("http://").unwrap().trim_end_matches('/').parse().unwrap();
    let get = |path: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    wait_until("the run", || get("/state.json").contains("\"standing\":\"running\""));
    run.kill().unwrap();
    let said = {
        let mut said = String::new();
        run.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        run.wait().unwrap();
        said
    };
    assert!(said.contains(&format!("live page: http://{address}/")), "{said}");
    wait_until("the news of its death", || get("/state.json").contains("\"standing\":\"killed\""));
    // It would stay for some minutes; the test ends it by its own number, which the kernel knows from its port.
    let found = std::fs::read_dir("/proc").unwrap().flatten().find(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("\0serve\0") && line.contains(&test.path().display().to_string())
    });
    let pid: i32 = found.expect("the page's process").file_name().to_string_lossy().parse().unwrap();
    // SAFETY: sends a signal to the process that this test started.
    unsafe { libc::kill(pid, libc::SIGTERM) };
}

#[test]
fn a_browser_follows_a_run_to_its_end() {
    let Some(mut browser) = Browser::start() else { return };
    let test = Test::new();
    test.write("a.exp", format!("{}\n{}", gated(&test), PRETRAINING));
    let served = Served::start(&test, &["a.exp"]);
    browser.load(&served.url);
    browser.wait("document.querySelector('#standing').textContent === 'awaited'");
    let run = test.start(&["run", "a.exp", "-j", "2"]);
    browser.wait("document.querySelector('#standing').textContent === 'running'");
    browser.wait("[...document.querySelectorAll('#running .name')].some((e) => e.textContent === 'gate')");
    browser.wait("document.querySelector('#log').textContent.includes('before the gate')");
    // Families are nodes; what is chosen in the graph is listed.
    browser.wait("document.querySelectorAll('.node').length === 4");
    browser.evaluate("[...document.querySelectorAll('.node')].find((n) => n.textContent.startsWith('after')).click()");
    browser.wait("document.querySelectorAll('#steps tr').length === 3");
    assert_eq!(browser.evaluate("document.querySelectorAll('#steps script, #log script, #graph script').length"), 0);
    assert!(browser.evaluate("document.querySelector('#steps').textContent").as_str().unwrap().contains("<script>"));
    // Curves grow while the gate is still closed.
    browser.wait("document.querySelectorAll('#curves figure').length >= 1");
    browser.wait("[...document.querySelectorAll('#curves figure')].some((f) => f.textContent.includes('loss of pretrain') && f.querySelector('.plot > *'))");
    browser.wait("document.querySelectorAll('#load figure').length >= 2");
    if let Some(folder) = std::env::var_os("HARNESS_SCREENSHOTS") {
        browser.wait("[...document.querySelectorAll('#steps tr')].length > 0");
        browser.screenshot(&Path::new(&folder).join("live-running.png"), true);
    }
    test.write("go", "");
    browser.wait("document.querySelector('#standing').textContent === 'finished'");
    browser.wait("document.querySelector('#running-part').hidden");
    browser.wait("document.querySelector('#claims').textContent.includes('numbers are <b>numbers</b>')");
    browser.wait("document.querySelector('#summary-frame iframe') !== null");
    assert!(run.wait_with_output().unwrap().status.success());
    assert_eq!(browser.evaluate("document.title"), "6/6 a.exp finished");
    // Nothing is asked of anyone else, and the page's own policy is content.
    let requests = browser.requests();
    assert!(requests.iter().all(|url| url.starts_with(&served.url)), "{requests:?}");
    assert_eq!(browser.troubles(), [""; 0]);
    // A phone is narrow; the page is not wider.
    browser.size(390, 844, true);
    browser.wait("document.documentElement.scrollWidth <= 390");
}

/// A small pretraining, whose curve grows point by point.
const PRETRAINING: &str = r#"
scenes world { train = 64, holdout = 16, test = 16, size = 32, classes = 2 }
pretrain moco {
    data = world.train, encoder = resnet18 { stem = small, width = 0.125 }, epochs = 5, batch = 32
    optimizer = sgd { lr = 0.06 }, schedule = cosine, seed = 1
    contrast = moco { dim = 16, queue = 64, momentum = 0.9, temperature = 0.1 }
    views = two_crops { size = 16, scale = 0.2..1.0 }
}
"#;

/// `harness` in a terminal of its own, and the other end of it.
struct Terminal {
    child: Child,
    other: File,
    /// Kept open, to ask how the terminal is set.
    own: OwnedFd,
    seen: String,
}

impl Terminal {
    fn start(test: &Test, arguments: &[&str], columns: u16, rows: u16) -> Self {
        let (mut other, mut own) = (-1, -1);
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the pointers are to two integers and a size; the names and settings that may be null are.
        let made = unsafe { libc::openpty(&mut other, &mut own, std::ptr::null_mut(), std::ptr::null(), &size) };
        assert_eq!(made, 0, "a terminal");
        // SAFETY: openpty gave both, to nobody else.
        let (other, own) = unsafe { (File::from_raw_fd(other), OwnedFd::from_raw_fd(own)) };
        let mut command = test.command(arguments);
        let end = || Stdio::from(own.try_clone().unwrap());
        command.env("TERM", "xterm-256color").stdin(end()).stdout(end()).stderr(end());
        // SAFETY: both calls are safe between fork and exec.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        // SAFETY: sets a flag of a descriptor that this owns.
        unsafe { libc::fcntl(other.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        Self { child, other, own, seen: String::new() }
    }

    /// Waits until these words were shown.
    fn shows(&mut self, words: &str) {
        let start = Instant::now();
        while !self.seen.contains(words) {
            assert!(start.elapsed() < PATIENCE, "`{words}` was not shown: {:?}", self.seen);
            let mut bytes = [0; 4096];
            match self.other.read(&mut bytes) {
                Ok(read) if read > 0 => self.seen.push_str(&String::from_utf8_lossy(&bytes[..read])),
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn press(&mut self, keys: &str) {
        self.seen.clear();
        self.other.write_all(keys.as_bytes()).unwrap();
    }

    /// Whether lines are edited and shown as they are typed, as a shell needs it.
    fn is_plain(&self) -> bool {
        // SAFETY: fills settings that are plain numbers, of an open terminal.
        let settings = unsafe {
            let mut settings: libc::termios = std::mem::zeroed();
            assert_eq!(libc::tcgetattr(self.own.as_raw_fd(), &mut settings), 0);
            settings
        };
        settings.c_lflag & (libc::ICANON | libc::ECHO) == libc::ICANON | libc::ECHO
    }
}

#[test]
fn the_full_screen_follows_a_run_and_leaves_the_terminal_as_it_was() {
    let test = Test::new();
    test.write("a.exp", gated(&test));
    let mut run = test.start(&["run", "a.exp"]);
    let events = test.path().join(".harness/runs");
    wait_until("the run", || std::fs::read_dir(&events).is_ok_and(|mut all| all.next().is_some()));
    wait_until("its first step", || test.harness(&["status", "--json"]).stdout.contains("gate"));
    let mut screen = Terminal::start(&test, &["watch"], 100, 30);
    screen.shows("\x1b[?1049h");
    // Between words the cursor may be moved instead of a space written.
    screen.shows("before");
    assert!(!screen.is_plain(), "keys come one by one");
    screen.press("?");
    screen.shows("Ctrl-C");
    screen.press("?");
    // A signal leaves it clean too.
    // SAFETY: sends a signal to the child of this test.
    unsafe { libc::kill(screen.child.id() as i32, libc::SIGTERM) };
    screen.shows("\x1b[?1049l");
    assert!(screen.child.wait().unwrap().success() && screen.is_plain());
    screen.shows("goes on; `harness watch");
    let mut screen = Terminal::start(&test, &["watch", "a.exp"], 60, 20);
    screen.shows("running");
    test.write("go", "");
    screen.shows("finished");
    screen.press("q");
    screen.shows("\x1b[?1049l");
    screen.shows("4 executed");
    assert!(screen.child.wait().unwrap().success() && screen.is_plain());
    assert!(run.wait().unwrap().success());
    // Where there is no terminal it is lines, and so it is if asked for.
    let plain = test.harness(&["watch", "latest"]).code(0);
    assert!(!plain.stderr.contains('\x1b') && plain.stderr.contains("4 executed"), "{}", plain.stderr);
    let mut lines = Terminal::start(&test, &["watch", "latest", "--plain"], 80, 24);
    lines.shows("4 executed");
    assert!(!lines.seen.contains("\x1b[?1049h"));
    lines.child.wait().unwrap();
}

#[test]
fn tensorboard_gets_a_folder_for_each_step() {
    let text = "command a { run = [\"sh\", \"-c\", \"echo '{\\\"v\\\": 2.5}' > metrics.json\"], metrics = [\"v\"] }\n";
    let test = Test::new().file("a.exp", text);
    test.harness(&["run", "a.exp", "--tensorboard", "live"]).code(0);
    test.harness(&["export", "tensorboard", "a.exp", "later"])
        .code(0)
        .says(&["1 step written", "tensorboard --logdir later"]);
    for folder in ["live/a", "later/a"] {
        let files: Vec<_> = std::fs::read_dir(test.path().join(folder)).unwrap().flatten().collect();
        let name = files[0].file_name().into_string().unwrap();
        assert!(files.len() == 1 && name.starts_with("events.out.tfevents."), "{name}");
        let bytes = std::fs::read(files[0].path()).unwrap();
        let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        assert!(has(b"brain.Event:2") && has(b"result/v") && has(&2.5_f32.to_le_bytes()), "{folder}");
    }
    // Again: the same file, not one beside it.
    test.harness(&["export", "tensorboard", "a.exp", "later"]).code(0);
    assert_eq!(std::fs::read_dir(test.path().join("later/a")).unwrap().count(), 1);
}
