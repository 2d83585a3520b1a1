//! The adapter with real files and a resolver that does as it is told.

use std::collections::HashMap;
use std::fs;
use std::sync::{Mutex, mpsc};

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

/// Names that are known; all others are not.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<HashMap<String, IpAddr>>>);

impl Names {
    fn set(&self, name: &str, address: &str) {
        let address = address.parse().expect("an address");
        self.0
            .lock()
            .expect("no panic")
            .insert(name.to_owned(), address);
    }
}

impl Resolve for Names {
    fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let names = self.0.lock().expect("no panic");
        names
            .get(name)
            .map(|address| vec![*address])
            .ok_or_else(|| io::Error::other("no such name"))
    }
}

struct Fixture {
    directory: TempDir,
    names: Names,
    discovery: FileDiscovery<Names>,
}

impl Fixture {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("peers.toml");
        let names = Names::default();
        let discovery =
            FileDiscovery::with_resolver(path, 862, names.clone(), Duration::from_millis(5));
        let fixture = Self {
            directory,
            names,
            discovery,
        };
        fixture.write(text);
        fixture
    }

    /// Replaces the file as a careful editor does.
    fn write(&self, text: &str) {
        let new = self.directory.path().join("new");
        fs::write(&new, text).expect("written");
        fs::rename(new, self.directory.path().join("peers.toml")).expect("renamed");
    }

    async fn next(&mut self) -> Result<Discovered, DiscoveryError> {
        timeout(Duration::from_secs(10), self.discovery.next_change())
            .await
            .expect("something changes")
    }

    async fn assert_quiet(&mut self) {
        let nothing = timeout(Duration::from_millis(60), self.discovery.next_change()).await;
        assert!(nothing.is_err(), "{nothing:?}");
    }
}

fn peer(name: &str, address: &str) -> String {
    format!("[[peer]]\nname = \"{name}\"\naddresses = [\"{address}\"]\n")
}

fn names(found: &Discovered) -> Vec<&str> {
    found
        .membership
        .members
        .iter()
        .map(|member| &*member.name)
        .collect()
}

#[tokio::test]
async fn the_first_call_returns_what_is_there_and_the_second_waits_for_a_change() {
    let mut fixture = Fixture::new(&peer("n1", "10.0.0.1"));
    let found = fixture.next().await.expect("good");
    assert_eq!(names(&found), ["n1"]);
    assert_eq!(found.membership.members[0].port, 862);
    fixture.assert_quiet().await;
    fixture.write(&(peer("n1", "10.0.0.1") + &peer("n2", "10.0.0.2")));
    assert_eq!(names(&fixture.next().await.expect("good")), ["n1", "n2"]);
}

#[tokio::test]
async fn stop_is_a_change() {
    let mut fixture = Fixture::new(&peer("n1", "10.0.0.1"));
    assert!(!fixture.next().await.expect("good").membership.stop);
    fixture.write(&(String::from("stop = true\n") + &peer("n1", "10.0.0.1")));
    assert!(fixture.next().await.expect("good").membership.stop);
}

#[tokio::test]
async fn other_words_for_the_same_are_no_change() {
    let mut fixture = Fixture::new(&peer("n1", "10.0.0.1"));
    fixture.next().await.expect("good");
    fixture.write(&(String::from("# a comment\n") + &peer("n1", "10.0.0.1")));
    fixture.assert_quiet().await;
}

#[tokio::test]
async fn a_broken_file_is_said_once_per_change_and_changes_nothing() {
    let good = peer("n1", "10.0.0.1");
    let mut fixture = Fixture::new(&good);
    fixture.next().await.expect("good");
    for broken in ["[[peer]\n", "sotp = true\n"] {
        fixture.write(broken);
        let error = fixture.next().await.expect_err("broken");
        assert!(
            matches!(error, DiscoveryError::Malformed { .. }),
            "{error:?}"
        );
        fixture.assert_quiet().await;
    }
    fixture.write(&good);
    fixture.assert_quiet().await;
    fixture.write(&peer("n2", "10.0.0.2"));
    assert_eq!(names(&fixture.next().await.expect("good")), ["n2"]);
}

#[tokio::test]
async fn mistakes_are_named_with_file_line_and_nearest_key() {
    let mut fixture = Fixture::new("[[peer]]\nnmae = \"n1\"\naddresses = [\"10.0.0.1\"]\n");
    let error = fixture.next().await.expect_err("broken").to_string();
    assert!(error.contains("peers.toml: line 1: this peer has no `name`\nline 2: unknown key `nmae`, did you mean `name`?"), "{error}");
}

#[tokio::test]
async fn an_unreadable_file_is_said_once_until_it_was_readable_again() {
    let good = peer("n1", "10.0.0.1");
    let mut fixture = Fixture::new(&good);
    fixture.next().await.expect("good");
    for _ in 0..2 {
        fs::remove_file(fixture.directory.path().join("peers.toml")).expect("removed");
        let error = fixture.next().await.expect_err("unreadable");
        assert!(
            matches!(error, DiscoveryError::Unreadable { .. }),
            "{error:?}"
        );
        fixture.assert_quiet().await;
        fixture.write(&good);
        fixture.assert_quiet().await;
    }
}

#[tokio::test]
async fn one_name_that_cannot_be_resolved_is_left_out_alone_and_tried_again() {
    let text = peer("n1", "10.0.0.1") + &peer("n2", "n2.example") + &peer("n3", "n3.example");
    let mut fixture = Fixture::new(&text);
    fixture.names.set("n3.example", "10.0.0.3");
    let found = fixture.next().await.expect("good");
    assert_eq!(names(&found), ["n1", "n3"]);
    assert_eq!(
        found
            .left_out
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["member n2 is left out: n2.example cannot be resolved: no such name"]
    );
    fixture.names.set("n2.example", "10.0.0.2");
    let found = fixture.next().await.expect("good");
    assert_eq!(names(&found), ["n1", "n2", "n3"]);
    assert_eq!(found.left_out, []);
}

#[tokio::test]
async fn reload_asks_again_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("peers.toml");
    fs::write(&path, peer("n1", "n1.example")).expect("written");
    let names = Names::default();
    let hour = Duration::from_hours(1);
    let mut discovery = FileDiscovery::with_resolver(path.clone(), 862, names.clone(), hour);
    assert_eq!(
        discovery.next_change().await.expect("good").left_out.len(),
        1
    );
    names.set("n1.example", "10.0.0.1");
    discovery.reload();
    let found = timeout(Duration::from_secs(10), discovery.next_change())
        .await
        .expect("at once");
    assert_eq!(found.expect("good").membership.members.len(), 1);
    // Renamed into place, as an operator should: a look that is still under way could read a file that is half written.
    let aside = directory.path().join("aside.toml");
    fs::write(&aside, peer("n2", "10.0.0.2")).expect("written");
    fs::rename(&aside, &path).expect("renamed");
    discovery.reload();
    let found = timeout(Duration::from_secs(10), discovery.next_change())
        .await
        .expect("at once");
    assert_eq!(&*found.expect("good").membership.members[0].name, "n2");
}

#[tokio::test]
async fn a_slow_name_server_does_not_hold_up_the_others() {
    #[derive(Clone)]
    struct Slow(Arc<Mutex<mpsc::Receiver<()>>>);
    impl Resolve for Slow {
        fn resolve(&self, _name: &str) -> io::Result<Vec<IpAddr>> {
            self.0
                .lock()
                .expect("no panic")
                .recv()
                .map_err(io::Error::other)?;
            Ok(vec![IpAddr::from([10, 0, 0, 2])])
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("peers.toml");
    fs::write(&path, peer("n1", "10.0.0.1") + &peer("n2", "slow.example")).expect("written");
    let (answer, answers) = mpsc::channel();
    let resolver = Slow(Arc::new(Mutex::new(answers)));
    let mut discovery = FileDiscovery::with_resolver(path, 862, resolver, Duration::from_millis(5));
    let found = discovery.next_change().await.expect("good");
    assert_eq!(names(&found), ["n1"]);
    assert_eq!(found.left_out[0].reason, "slow.example is not resolved yet");
    answer.send(()).expect("somebody waits");
    let found = discovery.next_change().await.expect("good");
    assert_eq!(names(&found), ["n1", "n2"]);
}

#[tokio::test]
async fn a_call_that_was_dropped_has_lost_nothing() {
    let mut fixture = Fixture::new(&peer("n1", "10.0.0.1"));
    for _ in 0..50 {
        let cut = timeout(Duration::from_micros(300), fixture.discovery.next_change()).await;
        if let Ok(found) = cut {
            assert_eq!(names(&found.expect("good")), ["n1"]);
            return;
        }
    }
    assert_eq!(names(&fixture.next().await.expect("good")), ["n1"]);
}

#[test]
fn the_system_knows_its_own_name() {
    let addresses = SystemResolver
        .resolve("localhost")
        .expect("in the hosts file");
    assert!(addresses.iter().all(IpAddr::is_loopback));
}
