//! What a histogram says in a few numbers.

use prometheus::Histogram;
use prometheus::core::Metric;

/// How long something took, as far as buckets tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantiles {
    /// How often it was measured.
    pub count: u64,
    /// In seconds, what half of them took at most: the upper bound of a bucket, infinite beyond the last one.
    pub half: f64,
    /// The same of 90 in 100.
    pub most: f64,
    /// The same of 99 in 100.
    pub nearly_all: f64,
}

impl Quantiles {
    /// None where nothing was measured yet.
    pub fn of(histogram: &Histogram) -> Option<Self> {
        let metric = histogram.metric();
        let measured = metric.get_histogram();
        let count = measured.get_sample_count();
        let within = |percent: u64| {
            let enough = |of_bucket: u64| u128::from(of_bucket) * 100 >= u128::from(count) * u128::from(percent);
            let bucket = measured.get_bucket().iter().find(|bucket| enough(bucket.cumulative_count()));
            bucket.map_or(f64::INFINITY, |bucket| bucket.upper_bound())
        };
        (count > 0).then(|| Self { count, half: within(50), most: within(90), nearly_all: within(99) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::HistogramOpts;

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket() {
        let histogram = Histogram::with_opts(HistogramOpts::new("a", "b").buckets(vec![0.1, 1.0, 10.0])).unwrap();
        assert_eq!(Quantiles::of(&histogram), None);
        (0..50).for_each(|_| histogram.observe(0.05));
        (0..40).for_each(|_| histogram.observe(0.5));
        (0..10).for_each(|_| histogram.observe(99.0));
        let wanted = Quantiles { count: 100, half: 0.1, most: 1.0, nearly_all: f64::INFINITY };
        assert_eq!(Quantiles::of(&histogram), Some(wanted));
        histogram.observe(99.0);
        assert_eq!(Quantiles::of(&histogram).unwrap().half, 1.0, "50 of 101 are not half of them");
    }
}
