//! How many requests run at once, of as many as the engine has places for. Pure.
//!
//! The more run at once the more tokens there are in a second, and the slower is each. Where a full house is so slow that
//! those in it miss their deadlines, on a slow machine or on one that others compute on, all is computed in vain. So places
//! are closed and opened as TCP sizes its window: a miss that fewer neighbours could have prevented closes half a place, so
//! that a full house of misses halves it, and an answer opens a sixteenth of one. At most one in nine is missed then for
//! long. While deadlines are met, all places are open. How far the one that missed had come bounds how many are closed: who
//! was half through beside fifteen others closes none of eight.

/// Places that a miss closes.
const CLOSED: f64 = 0.5;

/// Places that an answer opens.
const OPENED: f64 = 1.0 / 16.0;

/// Weight of the last answer's length among those before it.
const WEIGHT: f64 = 1.0 / 16.0;

/// Open and closed places.
#[derive(Debug)]
pub struct Places {
    most: f64,
    open: f64,
    /// Tokens of an answer; `None` before the first one.
    typical: Option<f64>,
}

/// How far a request has come in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Tokens that it was submitted with and that were not found in the cache: those cost no time.
    pub to_read: usize,
    /// Of these, how many were computed.
    pub read: usize,
    /// Tokens emitted since.
    pub emitted: usize,
}

impl Progress {
    /// Its part of the whole, 0 to 1, for an answer of so many tokens. A token that is read takes a fraction of one that is
    /// emitted, so the one is no measure of the other.
    fn of(self, answer: usize) -> f64 {
        let (done, all) =
            if self.read < self.to_read { (self.read, self.to_read + answer) } else { (self.emitted, answer) };
        if done < all { done as f64 / all as f64 } else { 1.0 }
    }
}

impl Places {
    /// So many, all open.
    pub fn new(most: usize) -> Self {
        Self { most: most as f64, open: most as f64, typical: None }
    }

    /// With so many open as another's of the same engine had; `None`: there was none.
    #[must_use]
    pub fn starting_at(self, open: Option<usize>) -> Self {
        let open = open.filter(|open| *open > 0).map_or(self.most, |open| self.most.min(open as f64));
        Self { open, ..self }
    }

    /// Most requests that may run, at least 1 if there is any place.
    pub fn open(&self) -> usize {
        self.open as usize
    }

    /// A request was answered with so many tokens.
    pub fn answered(&mut self, tokens: usize) {
        self.open = (self.open + OPENED).min(self.most);
        let typical = self.typical.unwrap_or(tokens as f64);
        self.typical = Some(typical + (tokens as f64 - typical) * WEIGHT);
    }

    /// A request missed its deadline in its place, as one of `running`. It could have emitted `most` tokens; answers are
    /// shorter as a rule. One that would have missed it alone as well says nothing: nobody is `running` times as fast
    /// alone, but up to that.
    pub fn missed(&mut self, progress: Progress, most: usize, running: usize) {
        let answer = self.typical.map_or(most as f64, |typical| typical.min(most as f64));
        let enough = progress.of(answer as usize) * running as f64;
        if running > 1 && enough >= 1.0 {
            self.open = self.open.min(self.most.min(enough).max(self.open - CLOSED));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALFWAY: Progress = Progress { to_read: 20, read: 20, emitted: 25 };

    #[test]
    fn a_full_house_of_misses_halves_it_and_answers_open_it_again() {
        let mut places = Places::new(16);
        (0..16).for_each(|_| places.missed(HALFWAY, 50, 16));
        assert_eq!(places.open(), 8);
        (0..16).for_each(|_| places.answered(50));
        assert_eq!(places.open(), 9);
        (0..1000).for_each(|_| places.answered(50));
        assert_eq!(places.open(), 16);
    }

    #[test]
    fn one_place_is_always_open() {
        let mut places = Places::new(4);
        (0..100).for_each(|_| places.missed(HALFWAY, 100, 4));
        assert_eq!(places.open(), 1);
        (0..16).for_each(|_| places.answered(50));
        assert_eq!(places.open(), 2);
        assert_eq!(Places::new(0).open(), 0);
    }

    #[test]
    fn who_would_have_missed_it_alone_as_well_closes_nothing() {
        let mut places = Places::new(16);
        for _ in 0..100 {
            places.missed(HALFWAY, 50, 1);
            places.missed(HALFWAY, 1000, 16);
            places.missed(Progress { to_read: 2000, read: 100, emitted: 0 }, 50, 16);
            // What was found took no time.
            places.missed(Progress { to_read: 1, read: 1, emitted: 1 }, 300, 2);
            // Reading is no measure of emitting.
            places.missed(Progress { to_read: 300, read: 300, emitted: 8 }, 200, 16);
        }
        assert_eq!(places.open(), 16);
    }

    #[test]
    fn how_far_who_missed_it_came_bounds_how_many_are_closed() {
        let mut places = Places::new(16);
        let missed =
            |places: &mut Places, progress, running| (0..100).for_each(|_| places.missed(progress, 50, running));
        missed(&mut places, Progress { emitted: 40, ..HALFWAY }, 16);
        assert_eq!(places.open(), 12);
        missed(&mut places, HALFWAY, 16);
        assert_eq!(places.open(), 8);
        missed(&mut places, Progress { emitted: 49, ..HALFWAY }, 16);
        assert_eq!(places.open(), 8, "a miss opens none");
    }

    #[test]
    fn a_restart_opens_no_closed_places() {
        let open = |before| Places::new(16).starting_at(before).open();
        assert_eq!([open(None), open(Some(0)), open(Some(5)), open(Some(99))], [16, 16, 5, 16]);
    }

    #[test]
    fn what_could_be_emitted_counts_up_to_what_answers_are_like() {
        let mut places = Places::new(16);
        places.missed(HALFWAY, 100_000, 16);
        assert_eq!(places.open(), 16, "nothing was answered yet");
        places.answered(60);
        places.missed(HALFWAY, 100_000, 16);
        assert_eq!(places.open(), 15);
    }

    #[test]
    fn a_mixture_of_misses_and_answers_settles_where_few_are_missed() {
        // Whoever runs beside five or more misses.
        let mut places = Places::new(16);
        let (mut missed, mut answered) = (0, 0);
        for round in 0..400 {
            for _ in 0..places.open() {
                if places.open() > 5 {
                    places.missed(HALFWAY, 50, places.open());
                    missed += u32::from(round >= 100);
                } else {
                    places.answered(50);
                    answered += u32::from(round >= 100);
                }
            }
        }
        assert!((4..=6).contains(&places.open()), "{places:?}");
        assert!(missed * 8 <= answered, "{missed} missed, {answered} answered");
    }
}
