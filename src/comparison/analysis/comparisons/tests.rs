use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;

/// How rounds scatter.
#[derive(Debug, Clone, Copy)]
enum Noise {
    /// Log-normal.
    Even,
    /// Mostly calm, and now and then a round that takes twice as long.
    HeavyTailed,
    /// The hour's load, which both arms share, far larger than what is between them.
    Drifting,
    /// Made of jobs whose durations are skewed, as those of a recorded run are.
    OfJobs,
}

fn normal(random: &mut StdRng) -> f64 {
    // Box and Muller.
    let (one, two): (f64, f64) = (random.random_range(f64::MIN_POSITIVE..1.0), random.random_range(0.0..1.0));
    (-2.0 * one.ln()).sqrt() * (std::f64::consts::TAU * two).cos()
}

fn makespan(noise: Noise, scatter: f64, hour: f64, random: &mut StdRng) -> f64 {
    let calm = (scatter * normal(random)).exp();
    match noise {
        Noise::Even => 900.0 * calm,
        Noise::HeavyTailed => 900.0 * calm * if random.random_range(0..10) == 0 { 2.0 } else { 1.0 },
        Noise::Drifting => 900.0 * hour * calm,
        Noise::OfJobs => {
            // 54 jobs on 8 slots in order, each with its own skewed duration and its own noise.
            let mut slots = [0.0_f64; 8];
            for job in 0..54 {
                let seconds = 20.0 * (1.1 * ((job * 7 % 54) as f64 / 54.0 * 6.0 - 3.0)).exp().min(8.0);
                let first = (0..8).min_by(|a, b| slots[*a].total_cmp(&slots[*b])).unwrap();
                slots[first] += seconds * (3.0 * scatter * normal(random)).exp();
            }
            slots.iter().copied().fold(0.0, f64::max)
        }
    }
}

/// In how many of `times` comparisons a difference is claimed, where the treatment takes `effect` times as long.
fn claims(times: usize, rounds: usize, noise: Noise, scatter: f64, effect: f64, seed: u64) -> usize {
    let mut random = StdRng::seed_from_u64(seed);
    (0..times)
        .filter(|_| {
            let pairs: Vec<(f64, f64)> = (0..rounds)
                .map(|_| {
                    let hour = (0.5 * normal(&mut random)).exp();
                    let baseline = makespan(noise, scatter, hour, &mut random);
                    (baseline, effect * makespan(noise, scatter, hour, &mut random))
                })
                .collect();
            MakespanRatio::of(&pairs).unwrap().claimed
        })
        .count()
}

#[test]
fn of_equals_hardly_any_is_claimed_to_differ() {
    for noise in [Noise::Even, Noise::HeavyTailed, Noise::Drifting, Noise::OfJobs] {
        for rounds in [5, 6, 8, 12, 20] {
            for seed in 1..=10 {
                let found = claims(200, rounds, noise, 0.05, 1.0, seed);
                assert!(found <= 10, "{found} of 200 with {noise:?}, {rounds} rounds, seed {seed}");
            }
        }
    }
}

#[test]
fn a_fifth_is_found() {
    for (noise, scatter, rounds) in [
        (Noise::Even, 0.05, 5),
        (Noise::Even, 0.08, 8),
        (Noise::Even, 0.10, 10),
        (Noise::Drifting, 0.05, 5),
        (Noise::OfJobs, 0.05, 6),
        (Noise::HeavyTailed, 0.05, 45),
    ] {
        for effect in [0.8, 1.2] {
            for seed in 1..=5 {
                let found = claims(200, rounds, noise, scatter, effect, seed);
                assert!(
                    found >= 160,
                    "{found} of 200 with {noise:?} of {scatter}, {rounds} rounds, effect {effect}, seed {seed}"
                );
            }
        }
    }
}

#[test]
fn nothing_is_claimed_below_five_rounds() {
    let pairs = [(100.0, 50.0); 4];
    let ratio = MakespanRatio::of(&pairs).unwrap();
    assert_eq!((ratio.ratio, ratio.claimed, ratio.rounds), (0.5, false, 4));
    assert!(MakespanRatio::of(&[(100.0, 50.0); 5]).unwrap().claimed);
    assert!(!MakespanRatio::of(&[(100.0, 100.0); 9]).unwrap().claimed);
    let one = MakespanRatio::of(&pairs[..1]).unwrap();
    assert_eq!((one.low, one.high, one.p_value), (None, None, None));
    assert!(MakespanRatio::of(&[]).is_none() && MakespanRatio::of(&[(0.0, 1.0)]).is_none());
}

#[test]
fn the_interval_is_that_of_student() {
    // Computed manually: logs 0.1, 0.2, 0.3, 0.2, 0.2; mean 0.2, deviation 0.070711, error 0.031623; t(4, 0.99) = 3.746947.
    let pairs = [0.1_f64, 0.2, 0.3, 0.2, 0.2].map(|log| (100.0, 100.0 * log.exp()));
    let ratio = MakespanRatio::of(&pairs).unwrap();
    let near = |one: f64, other: f64| (one - other).abs() < 1e-5;
    assert!(near(ratio.ratio.ln(), 0.2), "{ratio:?}");
    assert!(near(ratio.low.unwrap().ln(), 0.2 - 3.746_947 * 0.031_622_8), "{ratio:?}");
    assert!(near(ratio.high.unwrap().ln(), 0.2 + 3.746_947 * 0.031_622_8), "{ratio:?}");
    // t = 6.3246 with 4 degrees of freedom.
    assert!(near(ratio.p_value.unwrap(), 0.003_198), "{ratio:?}");
    assert!(ratio.claimed);
}
