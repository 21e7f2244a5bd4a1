//! One sentence: is it faster, and how sure is that.

use serde::Serialize;

use super::gains::{Gain, Kind};
use super::interval::LEAST_ROUNDS;
use super::observation::Run;
use crate::comparison::warnings::Warning;

/// The verdict of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// `faster`, `slower`, `no_difference`, `too_few_rounds`, `incomplete` or `single_arm`.
    pub code: &'static str,
    /// The same in words, interval first.
    pub text: String,
    /// The comparison it is about, by its place in the list.
    pub comparison: Option<usize>,
    /// Codes of warnings that speak against relying on it.
    pub cautions: Vec<String>,
}

/// Warnings under which a difference between arms may be due to something else.
const CAUTIONS: [&str; 11] = [
    "wrong_context",
    "wrong_queue",
    "parallelism_confounded",
    "fixed_arm_scaled",
    "jobs_differ",
    "submitted_twice",
    "success_differs",
    "missing_correlation",
    "packed_host",
    "broke_off",
    "orchestrator_unavailable",
];

/// The verdict: about the context where the arms can tell, else about the first and the last arm.
pub fn verdict(run: &Run, gains: &[Gain], warnings: &[Warning]) -> Verdict {
    let cautions: Vec<String> = CAUTIONS
        .iter()
        .filter(|code| warnings.iter().any(|warning| warning.code == **code))
        .map(|code| (*code).to_owned())
        .collect();
    let done = |code, text: String, comparison, cautions| Verdict { code, text, comparison, cautions };
    if run.arms.len() < 2 {
        let text = "One arm alone was run: there is nothing to compare it with.".to_owned();
        return done("single_arm", text, None, cautions);
    }
    let about = gains.iter().rposition(|gain| gain.kind == Kind::Context).or_else(|| {
        let (first, last) = (run.arms.first()?, run.arms.last()?);
        gains.iter().position(|gain| gain.baseline == first.name && gain.treatment == last.name)
    });
    let Some((at, gain)) = about.and_then(|at| Some((at, gains.get(at)?))) else {
        return done("incomplete", "Nothing was compared.".to_owned(), None, cautions);
    };
    let Some(ratio) = gain.ratio else {
        let text = format!("No verdict: {}.", gain.text);
        return done("incomplete", text, Some(at), cautions);
    };
    let but = if cautions.is_empty() {
        String::new()
    } else {
        format!(" Do not rely on it before you have read the warnings {}.", cautions.join(", "))
    };
    if ratio.rounds < LEAST_ROUNDS {
        let rounds = if ratio.rounds == 1 { "1 round" } else { &format!("{} rounds", ratio.rounds) };
        let text = format!(
            "No verdict: {rounds}, and a difference is claimed from {LEAST_ROUNDS} on. So far: {}.{but}",
            gain.text
        );
        return done("too_few_rounds", text, Some(at), cautions);
    }
    let (one, other) = (&gain.baseline, &gain.treatment);
    let (code, words) = match (ratio.claimed, ratio.ratio < 1.0) {
        (true, true) => ("faster", format!("{other} is faster than {one}")),
        (true, false) => ("slower", format!("{other} is slower than {one}")),
        (false, _) => ("no_difference", format!("no difference between {other} and {one} was found")),
    };
    let finding = gain.finding(&words).unwrap_or(words);
    done(code, format!("{finding}.{but}"), Some(at), cautions)
}
