//! The swarm's state machine under any sequence of events: messages of neighbours, as bytes,
//! blocks, ends of fetches and links, and time.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use shoal_core::swarm::Input;
use shoal_fuzz::{
    epoch,
    swarm::{Shell, Step},
};

fuzz_target!(|steps: Vec<Step>| {
    let mut now = epoch();
    let mut shell = Shell::default();
    for step in steps {
        now += Duration::from_millis(step.milliseconds.into());
        let Some(input) = shell.input(&step) else { continue };
        shell.handle(now, input);
    }
    // Whatever happened, it comes to rest: after each tick the next deadline lies in the future.
    for _ in 0..100 {
        let Some(at) = shell.swarm.next_deadline() else { break };
        now = now.max(at);
        shell.handle(now, Input::Tick);
        assert!(shell.swarm.next_deadline().is_none_or(|at| at > now), "a tick leaves work behind");
    }
});
