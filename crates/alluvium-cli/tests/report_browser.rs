//! The report's page in a real browser: headless Chromium, with a profile of its own.
//!
//! Without a Chromium the tests are skipped, and say so, unless `CI` or `ALLUVIUM_REQUIRE_BROWSER` is
//! set; `scripts/setup.sh --browser` installs one. `ALLUVIUM_CHROMIUM` names one in an unusual place.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::results::result;

fn chromium() -> Option<PathBuf> {
    let named = std::env::var_os("ALLUVIUM_CHROMIUM").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).flat_map(|dir| {
        ["chromium", "chromium-browser", "google-chrome", "chrome"].map(|name| dir.join(name))
    });
    let found = named.into_iter().chain(places).find(|place| place.is_file());
    let required = ["CI", "ALLUVIUM_REQUIRE_BROWSER"].iter().any(|name| std::env::var_os(name).is_some());
    assert!(found.is_some() || !required, "no Chromium was found; scripts/setup.sh --browser installs one");
    if found.is_none() {
        // Not by eprintln!, which is shown for failures alone.
        let skipped = b"SKIPPED: no Chromium was found; scripts/setup.sh --browser installs one\n";
        std::io::stderr().write_all(skipped).unwrap();
    }
    found
}

/// What a script in the page found out.
fn in_browser(results: &[Value], width: u32, script: &str) -> Option<Value> {
    let chromium = chromium()?;
    let dir = tempfile::tempdir().unwrap();
    let (json, html) = (dir.path().join("results.json"), dir.path().join("report.html"));
    std::fs::write(&json, Value::from(results).to_string()).unwrap();
    let args = [Path::new("report"), &json, Path::new("-o"), &html];
    let made = Command::new(env!("CARGO_BIN_EXE_alluvium")).args(args).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    // The script's answer is left where --dump-dom shows it. A frame makes the page as narrow as a
    // phone's: a browser's own window has a least width.
    let page = std::fs::read_to_string(&html).unwrap();
    let ask = format!(
        "<script>addEventListener('load', () => {{ setTimeout(() => {{ Promise.resolve((() => {{ {script} }})()) \
         .then((answer) => parent.postMessage(JSON.stringify(answer), '*')); }}, 100); }});</script></body>"
    );
    std::fs::write(&html, page.replace("</body>", &ask)).unwrap();
    let frame = dir.path().join("frame.html");
    let outer = format!(
        "<!doctype html><iframe src='report.html' width='{width}' height='1200'></iframe><pre></pre><script>\
         addEventListener('message', (event) => {{ document.querySelector('pre').textContent = 'ANSWER' + \
         encodeURIComponent(event.data) + 'END'; }});</script>"
    );
    std::fs::write(&frame, outer).unwrap();

    let output = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--virtual-time-budget=5000", "--window-size=1400,1400", "--dump-dom"])
        .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
        .arg(format!("file://{}", frame.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    let answer = dom.split_once("<pre>ANSWER").and_then(|(_, rest)| rest.split_once("END</pre>"));
    let Some((answer, _)) = answer else {
        panic!("the page did not answer:\n{dom}\n{}", String::from_utf8_lossy(&output.stderr));
    };
    Some(serde_json::from_str(&decode(answer)).unwrap())
}

/// Of `encodeURIComponent(text)`, which has no character that HTML would write otherwise.
fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let (digits, after) = tail.split_at(2);
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap());
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).unwrap()
}

const STATE: &str = "const root = document.documentElement; return { rendered: root.dataset.rendered, \
    errors: root.dataset.errors || '', charts: root.dataset.charts, \
    canvases: [...document.querySelectorAll('.plot canvas')].filter((c) => c.width > 100 && c.height > 100).length, \
    painted: [...document.querySelectorAll('.plot canvas')].filter((c) => new Set(new Uint32Array( \
        c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size > 8).length, \
    wide: root.scrollWidth - root.clientWidth, \
    cut: [...document.querySelectorAll('.card, .tile, .chart, .legend')].filter((e) => e.scrollWidth > e.clientWidth + 1) \
        .map((e) => `${e.className}: ${e.textContent.slice(0, 40)}`) };";

fn three() -> [Value; 3] {
    ["changelog", "native", "none"].map(|mode| result(mode, 100_000, 0))
}

#[test]
fn the_page_renders_without_errors_at_desktop_and_phone_width() {
    for width in [1280, 390, 320] {
        let Some(state) = in_browser(&three(), width, STATE) else { return };
        let right = json!({
            "rendered": "ok", "errors": "", "charts": "8", "canvases": 8, "painted": 8, "wide": 0, "cut": [],
        });
        assert_eq!(state, right, "{width} pixels wide");
    }
}

/// As a benchmark of several loads, systems and restores leaves them: eight that must not be thrown together.
pub(crate) fn unlike() -> Vec<Value> {
    let full: Vec<_> = ["changelog", "native", "none"].map(|mode| result(mode, 0, 0)).into();
    let mut paced: Vec<_> = ["changelog", "native"].map(|mode| result(mode, 20_000, 0)).into();
    for run in &mut paced {
        run["label"] = json!("paced");
        run["workload"]["keys"] = json!(100_000);
    }
    let mut others: Vec<_> = ["changelog", "native"].map(|mode| result(mode, 0, 0)).into();
    for (run, system) in others.iter_mut().zip(["flink-2.2", "a-system-with-a-rather-long-name"]) {
        run["system"] = json!(system);
    }
    let mut restored = result("changelog", 0, 0);
    for gone in ["samples", "checkpoint_series", "checkpoints", "materializations", "store", "load"] {
        restored.as_object_mut().unwrap().remove(gone);
    }
    (restored["measured_s"], restored["records"], restored["label"]) =
        (json!(0.0), json!(0), json!("restore-test"));
    [full, paced, others, vec![restored]].concat()
}

#[test]
fn runs_that_are_unlike_stay_readable() {
    const SCRIPT: &str = "const root = document.documentElement; \
        const wide = (e) => e.getBoundingClientRect().width; \
        const level = (e) => Number(e.tagName[1]); \
        const levels = [...document.querySelectorAll('h1, h2, h3')].map(level); \
        return { errors: root.dataset.errors || '', \
            sections: document.querySelectorAll('section.work').length, \
            charts: root.dataset.charts, \
            wide: root.scrollWidth - root.clientWidth, \
            narrow: [...document.querySelectorAll('tbody th[scope=row]')].filter((e) => e.offsetParent && wide(e) < 140).length, \
            scroll: [...document.querySelectorAll('.card.table')].every((e) => getComputedStyle(e).overflowX === 'auto' && e.tabIndex === 0), \
            ids: new Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size === document.querySelectorAll('[id]').length, \
            skipped: levels.some((n, i) => i > 0 && n > levels[i - 1] + 1), \
            empty: [...document.querySelectorAll('th')].filter((e) => e.textContent.trim() === '').length, \
            strange: document.querySelectorAll('dl span').length, \
            dead: [...document.querySelectorAll('.legend button')].filter((e) => e.textContent.includes('restore-test')).length, \
            high: root.scrollHeight };";
    let Some(mut state) = in_browser(&unlike(), 1280, SCRIPT) else { return };
    // Two loads with all that is to be said of each; thrown together it was 24,711.
    assert!(state["high"].as_u64() < Some(16_000), "{state}");
    state.as_object_mut().unwrap().remove("high");
    let right = json!({
        "errors": "", "sections": 2, "charts": "16", "wide": 0, "narrow": 0, "scroll": true, "ids": true,
        "skipped": false, "empty": 0, "strange": 0, "dead": 0,
    });
    assert_eq!(state, right);
}

#[test]
fn a_small_tick_of_a_logarithmic_axis_is_not_zero() {
    let mut run = result("changelog", 0, 0);
    let points: Vec<_> = (0..40)
        .map(|n| json!({"start_s": n, "duration_ms": 0.0001 * 10_f64.powi(n % 8), "bytes": 1}))
        .collect();
    run["checkpoint_series"] = json!(points);
    // The canvas holds no text: what is drawn on it is listened to.
    const SCRIPT: &str = "const said = []; const fill = CanvasRenderingContext2D.prototype.fillText; \
        CanvasRenderingContext2D.prototype.fillText = function (text, ...at) { said.push(String(text)); return fill.call(this, text, ...at); }; \
        const button = document.querySelector('button[data-group]'); button.click(); button.click(); \
        return new Promise((done) => setTimeout(() => done({ zeros: said.filter((text) => text === '0').length, \
            small: said.some((text) => text.startsWith('0.000')) }), 200));";
    let Some(state) = in_browser(&[run], 1280, SCRIPT) else { return };
    assert_eq!(state["small"], true, "{state}");
}

#[test]
fn unusual_results_render_without_errors() {
    let evil =
        "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">";
    let mut hostile = result("changelog", 0, 0);
    hostile["label"] = json!(evil);
    hostile["system"] = json!("x".repeat(300));
    let mut one_point = result("native", 0, 0);
    one_point["checkpoint_series"] = json!([{"start_s": 1.0, "duration_ms": 0.0, "bytes": 0}]);
    one_point["samples"] = json!([{"t_s": 0.0, "records": 0}]);
    let mut empty = result("none", 0, 0);
    empty.as_object_mut().unwrap().remove("samples");
    let cases = [
        vec![hostile, one_point.clone()],
        vec![one_point],
        vec![empty],
        (1..=4).flat_map(|repeat| ["changelog", "native"].map(|mode| result(mode, 0, repeat))).collect(),
    ];
    for (case, results) in cases.iter().enumerate() {
        let script = format!("{} ", STATE.replace("return {", "return { title: document.title,"));
        let Some(state) = in_browser(results, 390, &script) else { return };
        assert_eq!(
            (&state["rendered"], &state["errors"]),
            (&json!("ok"), &json!("")),
            "case {case}: {state}"
        );
        assert_eq!((&state["wide"], &state["cut"]), (&json!(0), &json!([])), "case {case}: {state}");
        assert_ne!(state["title"], "owned", "case {case}");
    }
}

#[test]
fn values_are_read_out_by_keyboard_and_runs_can_be_hidden() {
    let script = "const place = document.getElementById('checkpoint-duration'); place.focus(); \
        for (const key of ['Home', 'ArrowRight', 'ArrowRight']) \
            place.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true })); \
        const said = place.parentElement.querySelector('.said').textContent; \
        const button = document.querySelector('button[data-group=\"1\"]'); button.click(); \
        place.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true, cancelable: true })); \
        return { focused: document.activeElement.id, said, pressed: button.getAttribute('aria-pressed'), \
            without: place.parentElement.querySelector('.said').textContent, errors: document.documentElement.dataset.errors || '' };";
    let Some(state) = in_browser(&three(), 1280, script) else { return };
    assert_eq!((&state["focused"], &state["errors"]), (&json!("checkpoint-duration"), &json!("")));
    let said = state["said"].as_str().unwrap();
    // 2 % of 120 s.
    assert!(said.starts_with("at 2.4"), "{said}");
    assert!(
        said.contains("changelog")
            && said.contains("native")
            && said.contains(" ms")
            && said.contains("1.09 s"),
        "{said}"
    );
    let without = state["without"].as_str().unwrap();
    assert_eq!(state["pressed"], "false");
    assert!(without.contains("changelog") && !without.contains("native"), "{without}");
}
