//! What a cluster of real processes must survive besides the twelve faults.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::lab::{Lab, Stack};
use super::member::{GOSSIP, Member, Start, active, ids, rings_are, within};
use super::verdicts::{PROMISED, named, says};

/// Bounds of the protocol, and what it may take longer where no datagram arrives.
const WHOLE: Duration = Duration::from_secs(10);
const DEATH: Duration = Duration::from_secs(12);
const WITHOUT_DATAGRAMS: Duration = Duration::from_secs(2);

#[test]
fn without_datagrams_everything_works_and_a_restart_elsewhere_with_nothing_remembered_is_the_same_instance() {
    let Some(lab) = Lab::new("streams") else { return };
    let hosts = [Stack::Dual; 4].map(|stack| lab.host(stack));
    hosts.iter().for_each(|host| host.firewall(&["meta l4proto udp drop"], &["meta l4proto udp drop"]));
    let join = hosts[0].endpoints(GOSSIP);
    let names = ["a", "b", "c", "d"];
    let mut members: Vec<Member> =
        names.iter().zip(&hosts).map(|(name, host)| Start::new(name, &join).on(&lab, host)).collect();
    rings_are(WHOLE + WITHOUT_DATAGRAMS, &members, &ids(&members));

    let gone = members.pop().unwrap();
    let old = gone.host.v4.unwrap().to_string();
    gone.node.kill().unwrap();
    let (_, took) = within(DEATH + WITHOUT_DATAGRAMS, "the death is known", || {
        let knows = |member: &Member| active(&member.ring()) == ["a", "b", "c"];
        if members.iter().all(knows) { Ok(()) } else { Err(format!("{:#}", members[0].ring())) }
    });
    println!("a death is known to all after {took:?} without datagrams");
    for member in &members {
        let false_death = |line: &String| line.contains("member is down") && !line.contains("member=d#");
        assert_eq!(member.node.log().into_iter().find(false_death), None);
    }

    // The same name and id at another address, with none of its files.
    let again = Start::new("d", &join).on(&lab, &lab.host(Stack::Dual));
    let new = again.host.v4.unwrap().to_string();
    rings_are(WHOLE, &members, &["a", "b", "c", "d"].map(ToOwned::to_owned));
    within(PROMISED, "the new address", || {
        for member in members.iter().chain([&again]) {
            let page = member.ring();
            let code = &page["shards"][3]["finding"]["code"];
            if code != "healthy" && code != "datagrams_blocked" {
                return Err(page["shards"][3].to_string());
            }
            let addresses = page["shards"][3]["addresses"].to_string();
            if !addresses.contains(&new) || addresses.contains(&format!("\"{old}\"")) {
                return Err(addresses);
            }
        }
        Ok(())
    });
}

#[test]
fn an_address_that_another_cluster_takes_over_is_refused_and_its_process_named() {
    let Some(lab) = Lab::new("reuse") else { return };
    let hosts = [Stack::Dual; 3].map(|stack| lab.host(stack));
    let join = hosts[0].endpoints(GOSSIP);
    let mut members: Vec<Member> =
        ["a", "b", "c"].iter().zip(&hosts).map(|(name, host)| Start::new(name, &join).on(&lab, host)).collect();
    rings_are(WHOLE, &members, &ids(&members));
    members.pop().unwrap().node.kill().unwrap();
    // It knows nobody and calls nobody: it is met when the old member is looked for.
    let foreign = Start::new("foreign", &[]).memberlist("cluster_label: 'another'").on(&lab, &hosts[2]);
    let (v4, v6) = (hosts[2].v4.unwrap().to_string(), hosts[2].v6.unwrap().to_string());
    let about = |page: &Value, code: &str| {
        let findings = page["Findings"].as_array().cloned().unwrap_or_default();
        findings.iter().any(|it| it["code"] == code && it["subject"].as_str().is_some_and(|it| it.contains("(c)")))
    };
    within(PROMISED + DEATH, "the stranger at the address is named", || {
        for member in &members {
            let page = member.members();
            if !about(&page, "foreign_label") {
                return Err(format!("{page:#}"));
            }
            let ring = member.ring();
            let shards = ring["shards"].as_array().cloned().unwrap_or_default();
            let taken = named("c", "dead", true, &["another cluster label"]);
            says(&serde_json::json!({ "shards": shards }), &[taken])?;
        }
        Ok(())
    });
    assert_eq!(active(&foreign.ring()), ["foreign"], "it took nobody in");
    let strangers = foreign.members()["Findings"].clone();
    assert!(strangers.as_array().is_some_and(|all| !all.is_empty()), "it names who called it: {strangers}");
    println!("met at {v4} or {v6}");
}

/// Reads one frame with its length before it, as it travels.
fn frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    stream.read_exact(&mut bytes).unwrap();
    let length = u32::from_be_bytes(bytes[..4].try_into().unwrap());
    bytes.resize(4 + usize::try_from(length).unwrap(), 0);
    stream.read_exact(&mut bytes[4..]).unwrap();
    bytes
}

#[test]
fn garbage_oversized_and_replayed_frames_are_refused_and_counted_and_change_nothing() {
    let Some(lab) = Lab::new("frames") else { return };
    let key = "encryption_keys: 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8='";
    let hosts = [Stack::V4; 3].map(|stack| lab.host(stack));
    let join = hosts[0].endpoints(GOSSIP);
    let members: Vec<Member> = ["a", "b"]
        .iter()
        .zip(&hosts)
        .map(|(name, host)| Start::new(name, &join).memberlist(key).on(&lab, host))
        .collect();
    rings_are(WHOLE, &members, &ids(&members));

    // A third member takes this test for its seed: what it sends is a true frame, recorded.
    let listener = hosts[2].run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 17946)).unwrap());
    let third = Start::new("c", &hosts[2].endpoints(17946)).memberlist(key).on(&lab, &hosts[2]);
    let (mut stream, _) = listener.accept().unwrap();
    let recorded = frame(&mut stream);
    drop(third);

    let to = (members[0].host.v4.unwrap(), GOSSIP);
    let send = |bytes: &[u8]| {
        hosts[2].run(|| {
            let mut stream = TcpStream::connect(to).unwrap();
            // It may close before it has read everything: that is a refusal.
            stream.write_all(bytes).ok();
            stream.shutdown(std::net::Shutdown::Write).ok();
            let mut rest = Vec::new();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            stream.read_to_end(&mut rest).ok();
        });
    };
    let mut dice: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut garbage = |length: usize| -> Vec<u8> {
        let mut next = || {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            dice.to_le_bytes()[0]
        };
        (0..length).map(|_| next()).collect()
    };
    let with_length = |body: Vec<u8>| [u32::try_from(body.len()).unwrap().to_be_bytes().to_vec(), body].concat();
    for length in [0, 1, 9, 10, 40, 1400, 60_000] {
        send(&with_length(garbage(length)));
    }
    send(&u32::MAX.to_be_bytes());
    send(&[0xc5; 3]);
    for _ in 0..3 {
        send(&recorded);
    }
    // The frame itself, with one bit changed behind its head: it is not what its sender sealed.
    let mut changed = recorded.clone();
    *changed.last_mut().unwrap() ^= 1;
    send(&changed);
    let (counts, _) = within(PROMISED, "all of it is counted", || {
        let refused = members[0].members()["RefusedFrames"].clone();
        let count = |reason: &str| refused[reason].as_u64().unwrap_or(0);
        // The first copy is as good as the original, which never came.
        let counted = count("replayed") == 2 && count("key") >= 1 && count("version") >= 3 && count("size") >= 2;
        if counted { Ok(refused) } else { Err(refused.to_string()) }
    });
    println!("refused: {counts}");
    rings_are(WHOLE, &members, &ids(&members));
    let down = |line: &String| line.contains("member is down") && !line.contains("member=c#");
    assert_eq!(members[0].node.log().into_iter().find(down), None);
}
