//! Wall clocks that step by an hour, in a process that runs and from one life of it to the next.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vivace_integration::skip;

use super::lab::{Lab, Stack};
use super::member::{GOSSIP, Member, Start, active, ids, rings_are};
use super::verdicts::PROMISED;

/// Until a cluster that was started at once is whole.
const WHOLE: Duration = Duration::from_secs(10);
/// Until a process that has nobody to wait for is in its ring.
const ALONE: Duration = Duration::from_secs(5);

/// Debian's libfaketime: it gives a process another wall clock.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// A wall clock for processes, which steps when it is told.
struct WallClock {
    offset: PathBuf,
}

impl WallClock {
    /// None, after saying so, where this machine has no library for it.
    fn of(lab: &Lab) -> Option<Self> {
        if !Path::new(FAKETIME).exists() {
            skip::skip("steps of the clock: libfaketime is missing (Debian: faketime)");
            return None;
        }
        let clock = Self { offset: lab.dir().join("offset") };
        clock.step("+0");
        Some(clock)
    }

    /// So many seconds beside the true time from now on.
    fn step(&self, offset: &str) {
        std::fs::write(&self.offset, offset).unwrap();
    }

    /// A member that lives by this clock.
    fn rules(&self, mut start: Start) -> Start {
        let faked = [
            ("LD_PRELOAD", FAKETIME),
            ("FAKETIME_TIMESTAMP_FILE", self.offset.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        start.env.extend(faked.map(|(key, value)| (key.to_owned(), value.to_owned())));
        start
    }
}

/// The hour that its page shows.
fn hour(member: &Member) -> String {
    member.ring()["now"].as_str().map(|now| now[..13].to_owned()).unwrap_or_default()
}

#[test]
fn clocks_that_step_by_an_hour_and_a_long_pause_take_nobody_down_for_good() {
    let Some(lab) = Lab::new("time") else { return };
    let Some(clock) = WallClock::of(&lab) else { return };
    let hosts = [Stack::Dual; 4].map(|stack| lab.host(stack));
    let join = hosts[0].endpoints(GOSSIP);
    let members: Vec<Member> = ["a", "b", "paused", "stepping"]
        .iter()
        .zip(&hosts)
        .map(|(name, host)| {
            let start = Start::new(name, &join);
            if *name == "stepping" { clock.rules(start) } else { start }.on(&lab, host)
        })
        .collect();
    rings_are(WHOLE, &members, &ids(&members));
    let (paused, stepping) = (&members[2], &members[3]);
    // The pause is longer than any deadline of the one that is paused; the others declare it down, and take it back.
    paused.node.signal("STOP").unwrap();
    let mut hours = vec![hour(stepping)];
    for step in ["+3600", "-3600", "+0"] {
        clock.step(step);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(4) {
            for member in [&members[0], &members[1], stepping] {
                let shown = active(&member.ring());
                let missing = ["a", "b", "stepping"].iter().find(|id| !shown.contains(&(**id).to_owned()));
                assert_eq!(missing, None, "as {} sees it after a step of {step}", member.id);
            }
            std::thread::park_timeout(Duration::from_millis(300));
        }
        hours.push(hour(stepping));
    }
    assert!(hours[1] != hours[0] && hours[2] != hours[0] && hours[1] != hours[2], "the clock stepped: {hours:?}");
    paused.node.signal("CONT").unwrap();
    rings_are(PROMISED, &members, &ids(&members));
    for member in &members {
        let false_death = |line: &String| line.contains("member is down") && !line.contains("member=paused#");
        assert_eq!(member.node.log().into_iter().find(false_death), None, "{}", member.id);
    }
}

#[test]
fn a_restart_with_the_clock_set_back_begins_above_its_former_life_though_nobody_is_there_to_tell_it() {
    let Some(lab) = Lab::new("lives") else { return };
    let Some(clock) = WallClock::of(&lab) else { return };
    let host = lab.host(Stack::Dual);
    // It names nobody but itself.
    let start = clock.rules(Start::new("lone", &host.endpoints(GOSSIP)));
    let mut hours = Vec::new();
    for (step, disk_is_lost, generation) in
        [("+0", false, 1), ("-3600", false, 2), ("-7200", false, 3), ("+0", true, 1)]
    {
        clock.step(step);
        if disk_is_lost {
            std::fs::remove_dir_all(start.dir(&lab, &host)).unwrap();
        }
        let member = start.on(&lab, &host);
        let took = rings_are(ALONE, [&member], &["lone".to_owned()]);
        println!("alone in its ring after {took:?}");
        let page = member.ring();
        assert_eq!(page["shards"][0]["generation"], generation, "{page:#}");
        hours.push(hour(&member));
        member.node.kill().unwrap();
    }
    assert!(hours[0] > hours[1] && hours[1] > hours[2], "the clock was set back: {hours:?}");
}
