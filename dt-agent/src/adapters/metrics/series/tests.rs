use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::adapters::metrics::Interface;
use crate::engine::window::WindowReport;
use crate::ports::FeedStatus;

/// An agent of a mesh of 10,000 in 10 zones of 25 racks, each peer heard of once.
fn large_mesh(zones: usize, racks: usize) -> Telemetry {
    let telemetry = Telemetry {
        status: Some(Arc::default()),
    };
    telemetry.update(|status| {
        status.started = true;
        status.zone = String::from("z0");
        status.rack = String::from("r0");
        status.peers = 9_999;
        status.members = vec![(MemberState::Alive, 10_000), (MemberState::Failed, 0)];
        status.lease_s = Some(30.0);
        status.feed = Some(FeedStatus::default());
        for name in ["eth0", "eth1"] {
            status.interfaces.push(Interface {
                name: name.to_owned(),
                mode: Some(Mode::Xdp),
                reason: String::new(),
            });
        }
        for peer in 0..10_000_u64 {
            let rack = peer as usize % racks;
            let place = Place {
                zone: format!("z{}", rack % zones),
                rack: format!("r{rack}"),
            };
            let mut report = WindowReport::default();
            report.counters.sent = 2;
            report.counters.received = 1;
            report.counters.lost_return = 1;
            report.rtt.record(1_000 + peer * 1_000);
            status.rollup.add(&place, &report, peer % 100 == 0);
        }
    });
    telemetry
}

fn text_of(telemetry: &Telemetry, format: Format) -> String {
    String::from_utf8(encode(telemetry, format).unwrap()).unwrap()
}

fn series_in(text: &str) -> usize {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .count()
}

#[test]
fn a_large_mesh_has_at_most_two_thousand_series_an_agent() {
    for format in [Format::Text, Format::OpenMetrics] {
        let series = series_in(&text_of(&large_mesh(10, 250), format));
        assert!((1_000..=2_000).contains(&series), "{format:?}: {series}");
    }
}

#[test]
fn labels_without_end_do_not_make_more() {
    let series = series_in(&text_of(&large_mesh(500, 5_000), Format::Text));
    assert!(series <= 2_200, "{series}");
}

#[test]
fn figures_are_where_a_reader_looks_for_them() {
    let text = text_of(&large_mesh(10, 250), Format::Text);
    for line in [
        r#"dt_probes_sent_total{zone="z0",peer_zone="z3"} 2000"#,
        r#"dt_probes_total{zone="z0",peer_zone="z3",outcome="lost_return"} 1000"#,
        r#"dt_rack_probes_lost_total{zone="z0",rack="r0",peer_zone="z7",peer_rack="r7"} 40"#,
        r#"dt_rtt_seconds_count{zone="z0",peer_zone="z3"} 1000"#,
        r#"dt_rtt_seconds_bucket{zone="z0",peer_zone="z3",le="+Inf"} 1000"#,
        r#"dt_interface_mode{interface="eth0",mode="xdp"} 1"#,
        r#"dt_interface_mode{interface="eth0",mode="none"} 0"#,
        r#"dt_members{state="alive"} 10000"#,
        "dt_windows_suspect_total 100",
        "# TYPE dt_rtt_seconds histogram",
    ] {
        assert!(
            text.lines()
                .any(|found| found.trim_end_matches(".0") == line),
            "{line} is not in\n{text:.2000}"
        );
    }
}

#[test]
fn racks_have_native_buckets_in_protobuf_and_zones_both_kinds() {
    let telemetry = large_mesh(10, 250);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Series {
        telemetry,
        has_native: true,
    }));
    let families = prometheus_protobuf::encode(&registry).unwrap();
    let histograms = |name: &str| {
        let family = families.iter().find(|family| family.name == name).unwrap();
        let metrics = family.metric.iter();
        metrics
            .map(|metric| metric.histogram.clone().unwrap())
            .collect::<Vec<_>>()
    };
    let racks = histograms("dt_rack_rtt_seconds");
    assert_eq!(racks.len(), 250);
    assert!(
        racks
            .iter()
            .all(|rack| rack.bucket.is_empty() && !rack.positive_delta.is_empty())
    );
    let zones = histograms("dt_rtt_seconds");
    assert_eq!(zones.len(), 10);
    assert!(
        zones
            .iter()
            .all(|zone| zone.bucket.len() == 19 && zone.schema == 3 && zone.sample_count == 1_000)
    );
}

#[test]
fn the_reader_chooses_the_format() {
    let prometheus = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
        application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    for (header, format) in [
        (None, Format::Text),
        (Some(""), Format::Text),
        (Some("*/*"), Format::Text),
        (Some("text/html"), Format::Text),
        (
            Some("application/openmetrics-text; version=1.0.0"),
            Format::OpenMetrics,
        ),
        (
            Some("text/plain;q=0.4, application/openmetrics-text;q=0.5"),
            Format::OpenMetrics,
        ),
        (Some("application/openmetrics-text;q=0"), Format::Text),
        (
            Some("application/vnd.google.protobuf;proto=other"),
            Format::Text,
        ),
        (
            Some("application/vnd.google.protobuf;q=nonsense"),
            Format::Text,
        ),
        (Some(prometheus), Format::Protobuf),
    ] {
        assert_eq!(Format::accepted(header), format, "{header:?}");
    }
}

#[test]
fn a_port_that_is_taken_is_an_error_that_says_what_to_do() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let taken = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let error = Telemetry::serve(taken.local_addr().unwrap()).unwrap_err();
        assert!(error.to_string().contains("--metrics"), "{error}");
    });
}
