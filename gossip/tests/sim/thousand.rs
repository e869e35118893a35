//! A thousand members that start at once agree. (The other figures: `cargo run --example figures`.)

use std::time::{Duration, Instant};

use crate::world::{Stack, World};

#[test]
fn a_thousand_members_started_at_once_agree() {
    let size = 1000;
    let began = Instant::now();
    let mut world = World::new(1);
    for _ in 0..size {
        world.add_place(Stack::Dual);
    }
    world.network.weather.loss = 20;
    world.seeds = (0..3).flat_map(|place| world.addresses(place)).collect();
    for place in 0..size {
        world.start(place, &format!("member-{place}"), "cluster");
    }
    let all = world.living();
    let most = world.run_until(Duration::from_secs(15), |world| world.agreeing(&all) * 100 >= size * 99);
    assert!(most.is_some(), "99 % within 15 s: {} of {size}", world.agreeing(&all));
    let everybody = world.run_until(Duration::from_secs(15), |world| world.agreeing(&all) == size);
    println!("{size} members: 99 % after {most:?}, all {everybody:?} later, computed in {:?}", began.elapsed());
    assert!(everybody.is_some(), "all within 30 s: {} of {size}", world.agreeing(&all));
    assert_eq!(world.false_deaths, []);
}
