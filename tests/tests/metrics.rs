//! `/metrics` of real agents, scraped by a real Prometheus; the dashboard's queries and the alert rules on what it holds.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dt_tests::docker::run;
use dt_tests::{Agent, Host, Lab, Launch, Proc, agent, given, skip_unless_equipped, wait};
use serde_json::Value;

#[test]
fn prometheus_reads_agents_and_the_dashboard_finds_its_data() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::mesh(3)?;
    agent::write_peers(&lab, &members_with_labels(&lab))?;
    let _agents = start_all(&lab)?;
    for host in lab.hosts() {
        wait::until("readiness", LIMIT, || {
            Ok(get(host, "/readyz", "")
                .ok()
                .filter(|answer| answer.starts_with("HTTP/1.1 200")))
        })?;
    }
    check_formats(lab.host("n1"))?;

    let prometheus = Prometheus::start(&lab)?;
    let queries = dashboard_queries()?;
    ensure!(queries.len() >= 20, "{} queries", queries.len());
    for query in &queries {
        let what = format!("data for {query}");
        wait::until(&what, LIMIT, || {
            Ok(prometheus.has_data(query)?.then_some(()))
        })?;
    }
    // Native, not the classic twin: a histogram that is one sample, of all that was received.
    let count = "sum(histogram_count(dt_rack_rtt_seconds)) > 0";
    ensure!(prometheus.has_data(count)?, "no native histogram");
    ensure!(
        prometheus.has_data("dt_rtt_seconds_bucket")?,
        "no classic histogram"
    );
    let rules = prometheus.get("/api/v1/rules")?;
    let rules: Value = serde_json::from_str(&rules)?;
    let groups = rules["data"]["groups"]
        .as_array()
        .context("groups of rules")?;
    let rules: Vec<_> = groups
        .iter()
        .filter_map(|group| group["rules"].as_array())
        .flatten()
        .collect();
    ensure!(rules.len() == 11, "{} rules", rules.len());
    for rule in rules {
        ensure!(rule["health"] != "err", "{rule}");
        ensure!(
            rule["state"].as_str().is_none_or(|state| state != "firing"),
            "{rule}"
        );
    }
    Ok(())
}

#[test]
fn the_alert_rules_fire_when_they_should() -> Result<()> {
    skip_unless_equipped!();
    let rules = chart().join("rules");
    run(Command::new(given::tool("promtool")?)
        .args([
            "check",
            "rules",
            "--lint=all",
            "--lint-fatal",
            "distributed-trace.yaml",
        ])
        .current_dir(&rules))?;
    run(Command::new(given::tool("promtool")?)
        .args(["test", "rules", "distributed-trace.test.yaml"])
        .current_dir(&rules))?;
    Ok(())
}

/// What the port says to others than Prometheus, and what it does about those who mean no good.
fn check_formats(host: &Host) -> Result<()> {
    let text = get(host, "/metrics", "")?;
    ensure!(
        text.contains("content-type: text/plain; version=0.0.4"),
        "{text:.500}"
    );
    let body = text.split_once("\r\n\r\n").context("a body")?.1;
    let mut promtool = Command::new(given::tool("promtool")?)
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    promtool
        .stdin
        .take()
        .context("it is piped")?
        .write_all(body.as_bytes())?;
    let verdict = promtool.wait_with_output()?;
    let said = String::from_utf8_lossy(&verdict.stderr);
    ensure!(
        verdict.status.success() && said.is_empty(),
        "promtool check metrics: {said}"
    );

    let open = get(host, "/metrics", "Accept: application/openmetrics-text\r\n")?;
    ensure!(
        open.contains("application/openmetrics-text; version=1.0.0") && open.ends_with("# EOF\n")
    );
    wait::until("mode xdp", LIMIT, || {
        let verbose = get(host, "/readyz?verbose", "")?;
        Ok(verbose.contains("[+]interface to-n2 xdp").then_some(()))
    })?;
    ensure!(get(host, "/nothing", "")?.starts_with("HTTP/1.1 404"));
    ensure!(
        ask(
            host,
            "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
        )?
        .starts_with("HTTP/1.1 405")
    );
    // Not HTTP, and a head without end: refused, and the next one is served.
    ensure!(ask(host, "\u{1}\u{2}\u{3} nonsense\r\n")?.starts_with("HTTP/1.1 400"));
    let endless = format!(
        "GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n",
        "x".repeat(64 << 10)
    );
    let answer = ask(host, &endless).unwrap_or_default();
    ensure!(!answer.starts_with("HTTP/1.1 200"), "{answer:.200}");
    ensure!(get(host, "/healthz", "")?.ends_with("ok\n"));
    Ok(())
}

fn members_with_labels(lab: &Lab) -> String {
    let hosts = lab.hosts();
    let members = hosts.iter().enumerate().map(|(index, host)| {
        format!(
            "{}zone = \"z{}\"\nrack = \"r{index}\"\n",
            agent::member(host),
            index % 2
        )
    });
    members.collect()
}

fn start_all(lab: &Lab) -> Result<Vec<Agent>> {
    let flags = ["--metrics=0.0.0.0:9862", "--window=1s", "--rate=50"];
    let hosts = lab.hosts();
    hosts
        .iter()
        .map(|host| {
            Launch::on(lab, host.name())?
                .flags(&flags)
                .start(host.name())
        })
        .collect()
}

/// One on `n1`, which reaches the others as a peer does.
struct Prometheus<'a> {
    host: &'a Host,
    _process: Proc,
}

impl<'a> Prometheus<'a> {
    fn start(lab: &'a Lab) -> Result<Self> {
        let host = lab.host("n1");
        let targets: Vec<_> = lab
            .hosts()
            .iter()
            .map(|host| format!("'{}:9862'", host.ipv4()))
            .collect();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: ['{}']\n\
             scrape_configs:\n\
             - job_name: distributed-trace\n  scrape_native_histograms: true\n  always_scrape_classic_histograms: true\n\
             \x20 static_configs: [{{targets: [{}]}}]\n",
            chart().join("rules/distributed-trace.yaml").display(),
            targets.join(", ")
        );
        let file = lab.dir().join("prometheus.yaml");
        fs::write(&file, config)?;
        let mut command = host.command(&given::tool("prometheus")?.display().to_string());
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                lab.dir().join("tsdb").display()
            ))
            .arg("--web.listen-address=127.0.0.1:9090");
        let process = Proc::spawn("prometheus", &lab.dir(), &mut command)?;
        let prometheus = Self {
            host,
            _process: process,
        };
        wait::until("Prometheus", LIMIT, || Ok(prometheus.get("/-/ready").ok()))?;
        Ok(prometheus)
    }

    fn has_data(&self, query: &str) -> Result<bool> {
        let mut encoded = String::new();
        for byte in query.bytes() {
            write!(encoded, "%{byte:02X}")?;
        }
        let answer: Value =
            serde_json::from_str(&self.get(&format!("/api/v1/query?query={encoded}"))?)?;
        ensure!(answer["status"] == "success", "{query}: {answer}");
        Ok(answer["data"]["result"]
            .as_array()
            .is_some_and(|result| !result.is_empty()))
    }

    fn get(&self, path: &str) -> Result<String> {
        let request = format!("GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n");
        let answer = self.host.enter(|| exchange("127.0.0.1:9090", &request))??;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer of HTTP")?;
        ensure!(head.contains(" 200 ") || head.contains(" 400 "), "{head}");
        Ok(body.to_owned())
    }
}

/// Every query of the dashboard, its variables filled in as Grafana would with everything chosen.
fn dashboard_queries() -> Result<Vec<String>> {
    let text = fs::read_to_string(chart().join("dashboards/distributed-trace.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    let queries = targets.filter_map(|target| target["expr"].as_str());
    let filled = queries.map(|query| {
        let query = query
            .replace("$__rate_interval", "10s")
            .replace("$peer_zone", ".*");
        query.replace("$zone", ".*").replace("$job", ".*")
    });
    Ok(filled.collect())
}

fn chart() -> PathBuf {
    dt_tests::docker::root().join("helm-charts/dt-chart")
}

fn get(host: &Host, path: &str, headers: &str) -> Result<String> {
    ask(
        host,
        &format!("GET {path} HTTP/1.1\r\nHost: agent\r\n{headers}"),
    )
}

/// Sends a head, to which it adds the end, and reads until the agent closes.
fn ask(host: &Host, head: &str) -> Result<String> {
    let request = format!("{head}Connection: close\r\n\r\n");
    host.enter(|| exchange("127.0.0.1:9862", &request))?
}

fn exchange(address: &str, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

const LIMIT: Duration = Duration::from_secs(30);
