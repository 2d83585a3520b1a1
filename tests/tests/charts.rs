//! The charts by themselves: what Helm says of them, what their schemas refuse, and their tables of values.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use dt_tests::docker::run;
use dt_tests::{docker, given, skip_unless_equipped};

#[test]
fn helm_finds_nothing_to_complain_of() -> Result<()> {
    skip_unless_equipped!();
    for chart in CHARTS {
        run(helm()?.args(["lint", "--strict"]).arg(path(chart)))?;
    }
    Ok(())
}

#[test]
fn wrong_values_are_refused_in_words_that_name_them() -> Result<()> {
    skip_unless_equipped!();
    for (chart, setting, words) in [
        ("dt-chart", "agent.rte=5", "'rte' not allowed"),
        ("dt-chart", "agent.rate=fast", "/agent/rate"),
        ("dt-chart", "agent.mode=generic", "/agent/mode"),
        ("dt-chart", "agent.window=2h", "/agent/window"),
        ("dt-chart", "agent.metrics=9862", "/agent/metrics"),
        ("dt-chart", "agent.port=70000", "/agent/port"),
        ("dt-chart", "agent.env.RATE=5", "'RATE'"),
        (
            "dt-chart",
            "agent.metrics=127.0.0.1:9862",
            "the kubelet asks at the node's address",
        ),
        ("dt-chart", "agent.env.DT_RATE=5", "agent.env.DT_RATE"),
        (
            "dt-chart",
            "securityContext.mode=root",
            "/securityContext/mode",
        ),
        ("dt-chart", "zookeeper.replicas=2", "/replicas"),
        ("dt-chart", "kafka.servers=broker", "/kafka/servers"),
        (
            "dt-chart",
            "zookeeper.enabled=false",
            "zookeeper.servers empty",
        ),
        (
            "dt-chart",
            "zookeeper.servers=zk:2181",
            "set zookeeper.enabled=false",
        ),
        ("dt-chart", "kafka.release=", "/kafka/release"),
        ("dt-chart", "secrets.files=My_Keys", "/secrets/files"),
        ("kafka", "replicas=2", "/replicas"),
        ("kafka", "persistence.size=ten", "/persistence/size"),
        (
            "kafka",
            "networkPolicy.enabled=true",
            "networkPolicy.nodeCIDRs",
        ),
        ("zookeeper", "heapMB=1g", "/heapMB"),
        (
            "zookeeper",
            "networkPolicy.enabled=true",
            "networkPolicy.nodeCIDRs",
        ),
    ] {
        let refused = helm()?
            .args(["template", "release"])
            .arg(path(chart))
            .args(["--set", setting])
            .output()?;
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(!refused.status.success(), "{chart} takes {setting}");
        ensure!(said.contains(words), "{chart}, {setting}: {said}");
    }
    Ok(())
}

#[test]
fn every_combination_that_is_allowed_renders() -> Result<()> {
    skip_unless_equipped!();
    for (chart, settings) in [
        (
            "dt-chart",
            "securityContext.mode=capabilities,monitoring.rules=prometheusRule,monitoring.podMonitor=true",
        ),
        (
            "dt-chart",
            "monitoring.rules=configMap,networkPolicy.enabled=true,console.enabled=false",
        ),
        (
            "dt-chart",
            "zookeeper.enabled=false,zookeeper.servers=zk-1:2181,kafka.servers=broker:9092,nodeLabels.enabled=false",
        ),
        (
            "kafka",
            "replicas=3,networkPolicy.enabled=true,networkPolicy.nodeCIDRs={10.0.0.0/8},properties.log\\.retention\\.hours=1",
        ),
        ("zookeeper", "replicas=3,persistence.storageClass=fast"),
    ] {
        let rendered = run(helm()?
            .args(["template", "release"])
            .arg(path(chart))
            .args(["--set", settings]))?;
        ensure!(
            rendered.contains("kind: "),
            "{chart} with {settings}: {rendered}"
        );
    }
    Ok(())
}

#[test]
fn what_is_set_reaches_everybody_whom_it_concerns() -> Result<()> {
    skip_unless_equipped!();
    let render = |chart, settings| {
        run(helm()?
            .args(["template", "release"])
            .arg(path(chart))
            .args(["--set", settings]))
    };
    // As the image has it: a dot is one underscore, an underscore two, a hyphen three.
    let kafka = render("kafka", "properties.log\\.a_b-c=1")?;
    ensure!(kafka.contains("name: KAFKA_LOG_A__B___C\n"), "{kafka}");
    // Agents, console, and the test that reads the topic.
    let agents = render("dt-chart", "kafka.topic=other,imagePullSecrets={mine}")?;
    ensure!(agents.matches("value: \"other\"").count() == 3, "{agents}");
    // Those three, the other test, and both that clean up.
    ensure!(agents.matches("- name: mine").count() == 6, "{agents}");
    // Agents, console, and that test.
    let secret = render("dt-chart", "secrets.variables=passwords,secrets.files=keys")?;
    for (line, count) in [
        ("name: passwords", 3),
        ("secretName: keys", 3),
        ("mountPath: /etc/distributed-trace/secret", 3),
    ] {
        ensure!(secret.matches(line).count() == count, "{line}: {secret}");
    }
    Ok(())
}

#[test]
fn the_readmes_list_every_value() -> Result<()> {
    for chart in CHARTS {
        let values = fs::read_to_string(path(chart).join("values.yaml"))?;
        let wanted = table(&values).with_context(|| format!("values.yaml of {chart}"))?;
        let readme = fs::read_to_string(path(chart).join("README.md"))?;
        ensure!(
            readme.contains(&wanted),
            "README.md of {chart} should have:\n{wanted}"
        );
    }
    Ok(())
}

/// The rows for the README: what has a line `# -- ` above it in `values.yaml`.
fn table(values: &str) -> Result<String> {
    let mut rows = String::from("| value | default | |\n| --- | --- | --- |\n");
    // Names above the current line, by the depth of their indentation.
    let mut above: Vec<(usize, &str)> = Vec::new();
    let mut comment = None;
    for line in values.lines() {
        let text = line.trim_start();
        if let Some(words) = text.strip_prefix("# -- ") {
            comment = Some(words);
            continue;
        }
        let Some((name, value)) = text
            .split_once(':')
            .filter(|_| !text.starts_with(['#', '-']))
        else {
            continue;
        };
        let depth = line.len() - text.len();
        above.retain(|(other, _)| *other < depth);
        above.push((depth, name));
        let Some(words) = comment.take() else {
            ensure!(value.is_empty(), "{name} has no line `# -- ` above it");
            continue;
        };
        let path: Vec<_> = above.iter().map(|(_, name)| *name).collect();
        let default = if value.is_empty() {
            "see there"
        } else {
            value.trim()
        };
        writeln!(rows, "| `{}` | `{default}` | {words} |", path.join("."))?;
    }
    Ok(rows)
}

fn helm() -> Result<Command> {
    Ok(Command::new(given::tool("helm")?))
}

fn path(chart: &str) -> PathBuf {
    docker::root().join("helm-charts").join(chart)
}

const CHARTS: [&str; 3] = ["kafka", "zookeeper", "dt-chart"];
