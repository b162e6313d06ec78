//! The speculator against made-up machines and texts, in simulated time: what it wins, and that it never loses more than
//! its share.

use std::time::Duration;

use super::{Learned, Others, Outcome, Speculator, Token};

/// A small generator of numbers: the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn text(&mut self, tokens: usize, vocabulary: u64) -> Vec<Token> {
        (0..tokens).map(|_| self.next(vocabulary) as Token).collect()
    }
}

/// Seconds of a step by its tokens and the place in the context.
type Machine = fn(usize, usize) -> f64;

/// A step of any length costs little more than one token: a large model on a large GPU.
const FLAT: Machine = |tokens, _| 0.020 + 0.0005 * tokens as f64;
/// As measured on a processor with matrix tiles.
const TILES: Machine = |tokens, _| match tokens {
    1 => 0.025,
    _ => 0.037 + 0.003 * (tokens - 2) as f64,
};
/// Every token costs the same: nothing can be won.
const LINEAR: Machine = |tokens, _| 0.025 * tokens as f64;
/// Two tokens cost more than two steps, and everything grows with the context.
const WORSE: Machine = |tokens, place| {
    (0.020 * tokens as f64 + if tokens > 1 { 0.02 } else { 0.0 }) * (1.0 + place as f64 / 1000.0)
};

/// Seconds without and with guesses, the time of the prompt apart.
#[derive(Debug)]
struct Times {
    prompt: f64,
    alone: f64,
    guessing: f64,
    /// The most that guessing was behind at any token, as a share of all time until then.
    behind: f64,
}

impl Times {
    fn ratio(&self) -> f64 {
        self.alone / self.guessing
    }
}

/// Replays a reply. Each step's time varies by a tenth.
fn run(learned: &Learned, machine: Machine, prompt: &[Token], reply: &[Token]) -> Times {
    let mut noise = Numbers(7);
    let seconds_of_prompt = machine(1, 0) * prompt.len() as f64 / 8.0;
    let mut speculator = Speculator::new(learned, true, false);
    speculator.prompt(prompt, Duration::from_secs_f64(seconds_of_prompt));
    speculator.prompt(&reply[..1], Duration::ZERO);
    let mut times = Times { prompt: seconds_of_prompt, alone: 0.0, guessing: 0.0, behind: 0.0 };
    let mut done = 1;
    while done < reply.len() {
        let guesses = speculator.propose(reply.len() - done - 1, Others::default()).to_vec();
        let held =
            guesses.iter().zip(&reply[done..]).take_while(|(guess, token)| guess == token).count();
        let jitter = 0.95 + noise.next(100) as f64 / 1000.0;
        let seconds = machine(1 + guesses.len(), prompt.len() + done) * jitter;
        let tokens = &reply[done..=done + held];
        speculator.outcome(&Outcome {
            tokens,
            guessed: guesses.len(),
            others: Others::default(),
            elapsed: Duration::from_secs_f64(seconds),
            guessing: Duration::ZERO,
        });
        times.guessing += seconds;
        for place in done..=done + held {
            times.alone += machine(1, prompt.len() + place);
        }
        done += held + 1;
        let behind = (times.guessing - times.alone) / (times.prompt + times.alone);
        if done > 30 {
            times.behind = times.behind.max(behind);
        }
    }
    times
}

/// A long copy of the prompt in which every so many tokens one is replaced.
fn edited(prompt: &[Token], every: usize) -> Vec<Token> {
    let change =
        |(index, &token): (usize, &Token)| if index % every == every - 1 { 9999 } else { token };
    prompt.iter().enumerate().map(change).collect()
}

#[test]
fn an_edit_is_much_faster() {
    let prompt = Numbers(1).text(600, 5000);
    for (machine, least) in [(FLAT, 5.0), (TILES, 2.0)] {
        for every in [25, 60, 1000] {
            let times =
                run(&Learned::default(), machine, &prompt, &edited(&prompt, every)[10..500]);
            assert!(times.ratio() > least, "{every}: {:.2} {times:?}", times.ratio());
        }
    }
}

#[test]
fn nothing_is_lost_where_nothing_can_be_won() {
    let mut numbers = Numbers(2);
    let random = numbers.text(900, 5000);
    // Few tokens, so that everything occurred before and every guess is a coin with many sides.
    let dull = numbers.text(900, 6);
    let prompt = numbers.text(300, 5000);
    // Copies of eight tokens that always end differently: each match is a trap.
    let trap: Vec<Token> =
        (0..900).map(|index| if index % 9 == 8 { 6000 + index } else { index % 9 }).collect();
    // The worst that is believed of two tokens is that they cost as much as two steps; a machine on which they cost three
    // surprises once, for the price of one token.
    for (machine, share) in [(FLAT, 0.02), (TILES, 0.02), (LINEAR, 0.02), (WORSE, 0.03)] {
        for text in [&random, &dull, &trap, &edited(&prompt, 3), &edited(&prompt, 50)] {
            let learned = Learned::default();
            for _ in 0..3 {
                let times = run(&learned, machine, &prompt, text);
                assert!(times.behind < share, "{:.3}: {times:?}", times.ratio());
                assert!(times.ratio() > 0.98, "{:.3}: {times:?}", times.ratio());
            }
        }
    }
}

#[test]
fn a_text_that_turns_into_a_copy_is_noticed() {
    let mut numbers = Numbers(3);
    let prompt = numbers.text(600, 5000);
    let mut reply = numbers.text(300, 6);
    reply.extend_from_slice(&prompt[..500]);
    let times = run(&Learned::default(), TILES, &prompt, &reply);
    assert!(times.ratio() > 1.5, "{:.2} {times:?}", times.ratio());
}

#[test]
fn the_same_outcomes_give_the_same_guesses() {
    let prompt = Numbers(4).text(400, 300);
    let reply = edited(&prompt, 20);
    let first = run(&Learned::default(), TILES, &prompt, &reply);
    let second = run(&Learned::default(), TILES, &prompt, &reply);
    assert!((first.guessing - second.guessing).abs() < f64::EPSILON);
}

#[test]
fn limits_hold() {
    let learned = Learned::default();
    let mut speculator = Speculator::new(&learned, true, false);
    speculator.prompt(&[1, 2, 3, 4].repeat(50), Duration::from_secs(10));
    let step = |tokens, guessed| Outcome {
        tokens,
        guessed,
        others: Others::default(),
        elapsed: Duration::from_millis(20),
        guessing: Duration::ZERO,
    };
    assert!(speculator.propose(8, Others::default()).is_empty(), "the pace is not known yet");
    speculator.outcome(&step(&[1], 0));
    for limit in [0, 1, 2, 3] {
        let guesses = speculator.propose(limit, Others::default()).to_vec();
        assert!(guesses.len() <= limit, "{guesses:?}");
    }
    assert_eq!(speculator.propose(2, Others::default())[0], 2);
    assert!(speculator.propose(8, Others { replies: 3, tokens: 500 }).is_empty());
}
