//! Properties that hold for any load, and the ones a queueing system must have for known loads.

use proptest::prelude::*;

use super::*;

const POOL_QUEUE: &str = "autoscaling-poc-queue";

/// A load: (seconds after the one before, pool queue, work).
fn loads() -> impl Strategy<Value = Vec<(f64, bool, f64)>> {
    prop::collection::vec((prop_oneof![Just(0.0), 0.0..400.0], any::<bool>(), 0.5..200.0), 1..60)
}

fn run(load: &[(f64, bool, f64)]) -> HostModel {
    let mut model = HostModel::new(HostParameters::default());
    let mut at = 0.0;
    for (gap, pool, work) in load {
        at += gap;
        model.submit(at, if *pool { POOL_QUEUE } else { DEFAULT_QUEUE }, *work);
    }
    model.finish();
    model
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_job_ends_with_all_its_work_done(load in loads()) {
        let parameters = HostParameters::default();
        let model = run(&load);
        for job in &model.jobs {
            prop_assert_eq!(job.phase, Phase::Ended);
            let (started, running, ended) = (job.started.unwrap(), job.running.unwrap(), job.ended.unwrap());
            prop_assert!(job.submitted <= started + EPSILON && started < running && running < ended);
            prop_assert!(job.left.abs() < 1e-3, "work left: {}", job.left);
            let class = if model.hosts[job.host.unwrap()].pool { &parameters.pool } else { &parameters.fixed };
            // No job is faster than alone on its host, nor slower than with every slot taken.
            let (alone, crowded) = (job.work / class.rate(1.0), job.work / class.rate(class.slots as f64));
            prop_assert!(ended - running > alone - 1e-3 && ended - running < crowded + 1e-3);
            prop_assert!(job.cpu > job.work - 1e-3);
        }
    }

    #[test]
    fn no_host_ever_has_more_jobs_than_slots_and_the_pool_never_too_many_hosts(load in loads()) {
        let parameters = HostParameters::default();
        let model = run(&load);
        for (index, host) in model.hosts.iter().enumerate() {
            let class = if host.pool { &parameters.pool } else { &parameters.fixed };
            prop_assert!(host.peak <= class.slots);
            let here: Vec<_> = model.jobs.iter().filter(|job| job.host == Some(index)).collect();
            for job in &here {
                // Counted again from the outcome alone.
                let at = job.started.unwrap();
                let beside = here.iter().filter(|other| other.started.unwrap() <= at && other.ended.unwrap() > at).count();
                prop_assert!(beside <= class.slots);
                prop_assert!(at >= host.arrived && host.left.is_none_or(|left| job.ended.unwrap() <= left));
            }
        }
        let pool: Vec<_> = model.hosts.iter().filter(|host| host.pool).collect();
        for host in &pool {
            let there = pool.iter().filter(|o| o.arrived <= host.arrived && o.left.is_none_or(|left| left > host.arrived)).count();
            prop_assert!(there <= parameters.pool_max);
        }
    }

    #[test]
    fn a_queue_is_first_come_first_served(load in loads()) {
        let model = run(&load);
        for queue in [DEFAULT_QUEUE, POOL_QUEUE] {
            let starts: Vec<f64> = model.jobs.iter().filter(|job| job.queue == queue).map(|job| job.started.unwrap()).collect();
            prop_assert!(starts.windows(2).all(|pair| pair[0] <= pair[1]));
        }
        prop_assert!(model.jobs.iter().all(|job| job.queue == DEFAULT_QUEUE || model.hosts[job.host.unwrap()].pool));
    }

    #[test]
    fn looking_often_changes_nothing(load in loads(), step in 0.1..50.0) {
        let once = run(&load);
        let mut model = HostModel::new(HostParameters::default());
        let mut at = 0.0;
        for (gap, pool, work) in &load {
            let next = at + gap;
            while model.now + step < next {
                model.advance(model.now + step);
            }
            at = next;
            model.submit(at, if *pool { POOL_QUEUE } else { DEFAULT_QUEUE }, *work);
        }
        while model.jobs.iter().any(|job| job.ended.is_none()) {
            model.advance(model.now + step);
        }
        for (a, b) in once.jobs.iter().zip(&model.jobs) {
            prop_assert!((a.ended.unwrap() - b.ended.unwrap()).abs() < 1e-3);
            prop_assert_eq!(a.host, b.host);
        }
    }
}

fn makespan(queue: &str, works: &[f64]) -> f64 {
    let mut model = HostModel::new(HostParameters::default());
    for work in works {
        model.submit(0.0, queue, *work);
    }
    model.finish()
}

#[test]
fn a_job_alone_takes_handover_pod_start_and_its_work() {
    let parameters = HostParameters::default();
    let expected = parameters.handover + parameters.pod_start + 47.0;
    assert!((makespan(DEFAULT_QUEUE, &[47.0]) - expected).abs() < 1e-3);
}

#[test]
fn the_first_job_of_an_empty_pool_waits_for_a_host_and_its_image() {
    let parameters = HostParameters::default();
    let mut model = HostModel::new(parameters.clone());
    let first = model.submit(0.0, POOL_QUEUE, 20.0);
    let end = model.finish();
    let job = model.job(first);
    assert!((job.started.unwrap() - job.submitted - parameters.scale_up_delay).abs() < 1e-3);
    assert!((job.running.unwrap() - job.started.unwrap() - parameters.cold_start).abs() < 1e-3);
    // The next one finds the host warm.
    let second = model.submit(end, POOL_QUEUE, 20.0);
    model.finish();
    let job = model.job(second);
    assert!(!job.cold && (job.started.unwrap() - job.submitted).abs() < 1e-3);
    // A host that stays idle is given back, and the next job waits again.
    model.advance(model.now + parameters.scale_down_after + 1.0);
    assert!(model.hosts.last().unwrap().left.is_some());
    let third = model.submit(model.now, POOL_QUEUE, 20.0);
    model.finish();
    assert!(model.job(third).cold);
}

#[test]
fn more_jobs_take_longer_but_less_than_one_by_one() {
    let spans: Vec<f64> = [1, 2, 5, 14, 54, 162].iter().map(|n| makespan(DEFAULT_QUEUE, &vec![40.0; *n])).collect();
    assert!(spans.windows(2).all(|pair| pair[0] < pair[1]), "{spans:?}");
    assert!(spans[4] < 54.0 * spans[0] && spans[5] < 162.0 * spans[0], "{spans:?}");
}

#[test]
fn a_minimum_of_pool_hosts_is_there_from_the_beginning_and_stays() {
    let parameters = HostParameters { pool_min: 1, ..HostParameters::default() };
    let mut model = HostModel::new(parameters.clone());
    model.advance(10.0 * parameters.scale_down_after);
    let job = model.submit(model.now, POOL_QUEUE, 20.0);
    model.finish();
    assert!(!model.job(job).cold && model.job(job).started.unwrap() - model.job(job).submitted < 1e-3);
}

#[test]
fn canceling_frees_the_slot_for_the_next_in_line() {
    let mut model = HostModel::new(HostParameters { pool_max: 0, ..HostParameters::default() });
    let jobs: Vec<usize> = (0..16).map(|_| model.submit(0.0, DEFAULT_QUEUE, 100.0)).collect();
    model.advance(1.0);
    assert_eq!((model.job(jobs[13]).phase, model.job(jobs[14]).phase), (Phase::Starting, Phase::Pending));
    model.cancel(2.0, jobs[14]);
    model.cancel(3.0, jobs[0]);
    assert_eq!(model.job(jobs[15]).phase, Phase::Starting);
    assert_eq!((model.job(jobs[0]).ended, model.job(jobs[14]).host), (Some(3.0), None));
    model.finish();
    model.cancel(model.now + 1.0, jobs[15]);
    assert_eq!(model.job(jobs[15]).phase, Phase::Ended);
}

#[test]
fn a_queue_that_no_host_can_ever_serve_does_not_hang() {
    let mut model = HostModel::new(HostParameters { pool_max: 0, ..HostParameters::default() });
    let job = model.submit(0.0, POOL_QUEUE, 1.0);
    model.finish();
    model.advance(1e9);
    assert_eq!(model.job(job).phase, Phase::Pending);
}
