//! Chromium without a window, spoken to by its own protocol over a pair of pipes: messages are JSON with a zero byte behind.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long the browser may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// A browser with one page.
pub(crate) struct Browser {
    process: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    events: Vec<Value>,
    session: Option<String>,
    serial: u64,
    _profile: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _closing = self.try_call("Browser.close", &json!({}));
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Browser {
    /// None where there is no Chromium.
    pub(crate) fn start() -> Option<Self> {
        Command::new("chromium").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
        let profile = tempfile::tempdir().unwrap();
        // Its pipes are the descriptors 3 and 4. It asks nobody for anything on its own.
        let mut process = Command::new("sh")
            .args(["-c", "exec chromium \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null 2>&1", "chromium"])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--remote-debugging-pipe", "--window-size=1500,1200"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut message = Vec::new();
            while output.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                let parsed = serde_json::from_slice(&message).unwrap_or(Value::Null);
                if sender.send(parsed).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let mut browser =
            Self { process, input, messages, events: Vec::new(), session: None, serial: 0, _profile: profile };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", &attach);
        browser.session = session["sessionId"].as_str().map(ToOwned::to_owned);
        for domain in ["Page", "Runtime", "Log", "DOM"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        Some(browser)
    }

    pub(crate) fn call(&mut self, method: &str, params: &Value) -> Value {
        self.try_call(method, params).unwrap_or_else(|error| panic!("{method} {params}: {error}"))
    }

    fn try_call(&mut self, method: &str, params: &Value) -> Result<Value, String> {
        self.serial += 1;
        let id = self.serial;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.input.write_all(&bytes).map_err(|error| error.to_string())?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(left).map_err(|error| error.to_string())?;
            if message["id"] == id {
                let error = &message["error"];
                return if error.is_null() { Ok(message["result"].clone()) } else { Err(error.to_string()) };
            }
            self.events.push(message);
        }
    }

    fn wait_event(&mut self, method: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.events.iter().any(|event| event["method"] == method) {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(left);
            self.events.push(message.unwrap_or_else(|error| panic!("{method} does not come: {error}")));
        }
    }

    /// Opens a page and waits until everything that belongs to it is there.
    pub(crate) fn open(&mut self, url: &str) {
        self.events.clear();
        let answer = self.call("Page.navigate", &json!({ "url": url }));
        assert!(answer["errorText"].is_null(), "{url}: {answer}");
        self.wait_event("Page.loadEventFired");
    }

    /// Whether pages may run scripts, from the next one on.
    pub(crate) fn scripts(&mut self, allowed: bool) {
        self.call("Emulation.setScriptExecutionDisabled", &json!({ "value": !allowed }));
    }

    /// `light` or `dark`.
    pub(crate) fn scheme(&mut self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", &json!({ "features": [feature] }));
    }

    /// The page as it stands, as HTML.
    pub(crate) fn html(&mut self) -> String {
        let document = self.call("DOM.getDocument", &json!({ "depth": 0 }));
        let outer = self.call("DOM.getOuterHTML", &json!({ "nodeId": document["root"]["nodeId"] }));
        outer["outerHTML"].as_str().unwrap_or_default().to_owned()
    }

    /// What a person reads on the page.
    pub(crate) fn text(&mut self) -> String {
        let html = self.html();
        let body = html.split_once("<body").map_or(html.as_str(), |(_, body)| body);
        let mut text = String::new();
        for piece in body.split('<').skip(1) {
            text.push(' ');
            text.push_str(piece.split_once('>').map_or("", |(_, text)| text));
        }
        let signs = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&nbsp;", " "), ("&amp;", "&")];
        let text = signs.iter().fold(text, |text, (escaped, sign)| text.replace(escaped, sign));
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// What a script in the page says.
    pub(crate) fn evaluate(&mut self, script: &str) -> Value {
        let answer = self.call("Runtime.evaluate", &json!({ "expression": script, "returnByValue": true }));
        answer["result"]["value"].clone()
    }

    /// Presses what a selector names, as a mouse does.
    pub(crate) fn click(&mut self, selector: &str) {
        let document = self.call("DOM.getDocument", &json!({ "depth": 0 }));
        let query = json!({ "nodeId": document["root"]["nodeId"], "selector": selector });
        let node = json!({ "nodeId": self.call("DOM.querySelector", &query)["nodeId"] });
        assert_ne!(node["nodeId"], 0, "{selector} is not on the page");
        self.call("DOM.scrollIntoViewIfNeeded", &node);
        let quads = self.call("DOM.getContentQuads", &node)["quads"][0].clone();
        let corner = |index: usize| quads[index].as_f64().unwrap();
        let (x, y) = (f64::midpoint(corner(0), corner(4)), f64::midpoint(corner(1), corner(5)));
        self.events.clear();
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({ "type": kind, "x": x, "y": y, "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", &event);
        }
        self.wait_event("Page.loadEventFired");
    }

    /// A picture of the window.
    pub(crate) fn picture(&mut self) -> String {
        let picture = self.call("Page.captureScreenshot", &json!({ "format": "png" }));
        picture["data"].as_str().unwrap_or_default().to_owned()
    }

    /// What went wrong on the page since it was opened: errors of scripts, of the console, of what the page loads.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        // Everything that the browser had to say before it answers this has come.
        self.call("Page.getFrameTree", &json!({}));
        let loud = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Log.entryAdded") => event["params"]["entry"]["level"] != "verbose",
            Some("Runtime.consoleAPICalled") => {
                matches!(event["params"]["type"].as_str(), Some("error" | "warning" | "assert"))
            }
            _ => false,
        };
        self.events.iter().filter(loud).map(|event| event["params"].to_string()).collect()
    }
}
