//! A headless Chromium, driven over the DevTools protocol: pages are loaded, clicked, hovered and looked at.
//!
//! The protocol is JSON over two pipes (`--remote-debugging-pipe`), so it needs no port, no WebSocket and no crate with
//! bindings of the whole protocol, of which this uses fifteen calls. The browser is one that is installed, or the one
//! that `HARNESS_CHROMIUM` names; none is fetched.

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, PipeWriter, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long anything may take: far more than it does, since other tests run beside it.
const PATIENCE: Duration = Duration::from_secs(90);
/// Names under which it is installed.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// The installed browser.
pub fn installed() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("HARNESS_CHROMIUM") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    NAMES
        .iter()
        .flat_map(|name| std::env::split_paths(&path).map(move |dir| dir.join(name)))
        .find(|path| path.is_file())
}

/// A browser with one page.
pub struct Browser {
    child: Child,
    to: PipeWriter,
    from: Receiver<Value>,
    next: u64,
    session: String,
    /// Whether the left button is down.
    pressed: bool,
    /// What it told by itself since the page was loaded.
    events: Vec<Value>,
    /// Its profile, removed with it.
    _profile: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Browser {
    /// Starts it; none, with a word on standard error, where none is installed.
    ///
    /// # Panics
    /// It is installed and does not answer.
    pub fn start() -> Option<Self> {
        let Some(program) = installed() else {
            eprintln!("skipped: no browser ({}, or HARNESS_CHROMIUM) is installed", NAMES.join(", "));
            return None;
        };
        let profile = tempfile::tempdir().expect("a temporary folder");
        let (theirs_in, to) = std::io::pipe().expect("a pipe");
        let (from, theirs_out) = std::io::pipe().expect("a pipe");
        let mut command = Command::new(&program);
        command
            .args(["--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--hide-scrollbars"])
            // Containers lack what the sandbox needs; the pages are the tests' own.
            .args(["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-sync"])
            .args(["--disable-extensions", "--disable-component-update", "--mute-audio", "--force-color-profile=srgb"])
            // A reader's mouse, which a machine without a screen does not have.
            .arg("--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let (read, write) = (theirs_in.as_raw_fd(), theirs_out.as_raw_fd());
        // SAFETY: only calls that are safe between fork and exec.
        unsafe {
            command.pre_exec(move || {
                // First out of the way: either of the two may be 3 or 4 itself.
                let (a, b) = (libc::fcntl(read, libc::F_DUPFD, 10), libc::fcntl(write, libc::F_DUPFD, 10));
                if a < 0 || b < 0 || libc::dup2(a, 3) < 0 || libc::dup2(b, 4) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                libc::close(a);
                libc::close(b);
                Ok(())
            });
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        drop((theirs_in, theirs_out));
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(from).split(0) {
                let Ok(message) = message else { break };
                let Ok(value) = serde_json::from_slice(&message) else { continue };
                if sender.send(value).is_err() {
                    break;
                }
            }
        });
        let mut browser = Self {
            child,
            to,
            from: receiver,
            next: 0,
            session: String::new(),
            pressed: false,
            events: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = attached["sessionId"].as_str().expect("a session").into();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.size(1280, 900, false);
        Some(browser)
    }

    /// Calls a method of the protocol.
    ///
    /// # Panics
    /// The browser says no, or nothing.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).expect("the browser listens");
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut answer =
                self.from.recv_timeout(left).unwrap_or_else(|error| panic!("{method}: no answer ({error})"));
            if answer["id"] != self.next {
                self.events.push(answer);
                continue;
            }
            assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
            return answer["result"].take();
        }
    }

    /// Loads a page and waits until all of it is there.
    ///
    /// # Panics
    /// It cannot be loaded.
    pub fn load(&mut self, url: &str) {
        self.events.clear();
        let answer = self.call("Page.navigate", json!({ "url": url }));
        assert!(answer["errorText"].is_null(), "{url}: {}", answer["errorText"]);
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// Loads a page from a file.
    ///
    /// # Panics
    /// It cannot be loaded.
    pub fn load_file(&mut self, path: &Path) {
        let path = path.canonicalize().expect("the page is there");
        self.load(&format!("file://{}", path.display()));
    }

    /// The value of an expression; a promise is waited for.
    ///
    /// # Panics
    /// The expression throws.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let mut answer = self
            .call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true, "awaitPromise": true }));
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true.
    ///
    /// # Panics
    /// It never is.
    pub fn wait(&mut self, expression: &str) {
        let end = Instant::now() + PATIENCE;
        while self.evaluate(expression) != true {
            assert!(Instant::now() < end, "still not true: {expression}\n{:#?}", self.troubles());
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Width and height of the window in pixels; a phone's has touch and twice the dots.
    pub fn size(&mut self, width: u32, height: u32, phone: bool) {
        let scale = if phone { 2 } else { 1 };
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone }),
        );
    }

    /// What the system prefers, `light` or `dark`, on `screen` or for `print`.
    pub fn media(&mut self, scheme: &str, kind: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "media": kind, "features": features }));
    }

    /// The middle of the first element that a selector finds, scrolled into view.
    ///
    /// # Panics
    /// There is none.
    pub fn place(&mut self, selector: &str) -> (f64, f64) {
        let found = self.evaluate(&format!(
            "(() => {{ const e = document.querySelector({}); if (!e) return null; e.scrollIntoView({{ block: 'center', behavior: 'instant' }}); const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()",
            json!(selector)
        ));
        let at = |index: usize| found[index].as_f64().unwrap_or_else(|| panic!("there is no {selector}"));
        (at(0), at(1))
    }

    /// An event of the mouse: `mouseMoved`, `mousePressed`, `mouseReleased`, or `mouseWheel` with the pixels it turns.
    pub fn mouse(&mut self, kind: &str, (x, y): (f64, f64), turned: f64) {
        self.pressed = kind == "mousePressed" || self.pressed && kind != "mouseReleased";
        let button = if self.pressed || kind == "mouseReleased" { "left" } else { "none" };
        self.call(
            "Input.dispatchMouseEvent",
            json!({
                "type": kind, "x": x, "y": y, "button": button, "buttons": u8::from(self.pressed), "clickCount": 1,
                "deltaX": 0, "deltaY": turned,
            }),
        );
    }

    /// Clicks on the first element that a selector finds.
    pub fn click(&mut self, selector: &str) {
        let at = self.place(selector);
        self.mouse("mouseMoved", at, 0.0);
        self.mouse("mousePressed", at, 0.0);
        self.mouse("mouseReleased", at, 0.0);
    }

    /// Presses a key such as `Enter` or `Tab`.
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            " " => (32, " "),
            _ => (0, key),
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            self.call(
                "Input.dispatchKeyEvent",
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text }),
            );
        }
    }

    /// A picture of the window (`whole`: of all of the page) as PNG.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn screenshot(&mut self, path: &Path, whole: bool) {
        let answer = self.call("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": whole }));
        keep(&answer["data"], path);
    }

    /// The page as it is printed, on A4.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn pdf(&mut self, path: &Path) {
        let answer = self.call(
            "Page.printToPDF",
            json!({ "paperWidth": 8.27, "paperHeight": 11.69, "printBackground": true, "preferCSSPageSize": true }),
        );
        keep(&answer["data"], path);
    }

    /// What went wrong since the page was loaded: errors on the console, exceptions, what the page's own content policy
    /// refused, requests that failed.
    pub fn troubles(&mut self) -> Vec<String> {
        // Whatever was said until now arrives before the answer.
        self.call("Runtime.evaluate", json!({ "expression": "0" }));
        let told = |event: &Value| {
            let params = &event["params"];
            match event["method"].as_str()? {
                "Runtime.exceptionThrown" => {
                    let details = &params["exceptionDetails"];
                    Some(format!("exception: {} {}", details["text"], details["exception"]["description"]))
                }
                "Runtime.consoleAPICalled" if params["type"] == "error" || params["type"] == "warning" => {
                    Some(format!("console: {}", params["args"]))
                }
                "Log.entryAdded" if params["entry"]["level"] == "error" => {
                    Some(format!("{}: {}", params["entry"]["source"], params["entry"]["text"]))
                }
                _ => None,
            }
        };
        self.events.iter().filter_map(told).collect()
    }

    /// Addresses that were asked for since the page was loaded, its own first; what lies in the page itself (`data:`) is
    /// none.
    pub fn requests(&mut self) -> Vec<String> {
        self.call("Runtime.evaluate", json!({ "expression": "0" }));
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        let address = |event: &Value| event["params"]["request"]["url"].as_str().map(String::from);
        sent.filter_map(address).filter(|url| !url.starts_with("data:") && !url.starts_with("blob:")).collect()
    }
}

/// Writes what the protocol gives as base64.
fn keep(data: &Value, path: &Path) {
    use base64::Engine as _;
    let text = data.as_str().expect("the picture is text");
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).expect("the picture is base64");
    std::fs::write(path, bytes).expect("the picture can be written");
}
