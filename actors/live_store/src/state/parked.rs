//! Who waits until what the log had when they came is applied.
//!
//! ```text
//! park ──> came ──ask──> asked ──answered: the log's end──> due at that end ──applied──> let go
//! ```
//!
//! The log is asked one question at a time, for all who had come before it: an answer that is on its way already may be older than
//! what was acknowledged to who comes now. To let somebody go is to drop its end of the channel; who has dropped the other end
//! waits no more. How long anybody waits is not decided here.

use tokio::sync::oneshot;

/// So many wait at once; who comes then is not kept.
pub(crate) const MOST: usize = 64;

/// The other end of who waits.
pub(crate) type Waiter = oneshot::Sender<()>;

/// All who wait.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    /// Since the last question.
    came: Vec<Waiter>,
    /// Before it: its answer is theirs.
    asked: Vec<Waiter>,
    /// Until everything below an offset is applied.
    due: Vec<(u64, Waiter)>,
}

impl Parked {
    /// Keeps somebody. False: there is no room, and it is let go.
    pub(crate) fn park(&mut self, waiter: Waiter) -> bool {
        self.forget_gone();
        let has_room = self.len() < MOST;
        if has_room {
            self.came.push(waiter);
        }
        has_room
    }

    /// Whether the log is to be asked for its end, if no question is on its way.
    pub(crate) fn wants_end(&self) -> bool {
        self.came.iter().any(|waiter| !waiter.is_closed())
    }

    /// The log is asked now.
    pub(crate) fn ask(&mut self) {
        self.asked.append(&mut self.came);
    }

    /// The log has records below `end`; those below `next` are applied.
    pub(crate) fn answered(&mut self, end: u64, next: u64) {
        self.due.extend(self.asked.drain(..).map(|waiter| (end, waiter)));
        self.applied(next);
    }

    /// What was answered does not concern this log any more: it is to be asked again.
    pub(crate) fn misheard(&mut self) {
        self.came.append(&mut self.asked);
    }

    /// The log cannot say: nobody knows what to wait for.
    pub(crate) fn unanswered(&mut self) {
        self.asked.clear();
    }

    /// Everything below `next` is applied, or will never be.
    pub(crate) fn applied(&mut self, next: u64) {
        self.due.retain(|(end, _)| *end > next);
    }

    /// Lets everybody go: the log is followed no more, or its offsets mean something else.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        let waiters = self.came.iter().chain(&self.asked).chain(self.due.iter().map(|(_, waiter)| waiter));
        waiters.filter(|waiter| !waiter.is_closed()).count()
    }

    fn forget_gone(&mut self) {
        self.came.retain(|waiter| !waiter.is_closed());
        self.asked.retain(|waiter| !waiter.is_closed());
        self.due.retain(|(_, waiter)| !waiter.is_closed());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    type Waiting = oneshot::Receiver<()>;

    fn parked(all: &mut Parked) -> Waiting {
        let (waiter, waiting) = oneshot::channel();
        all.park(waiter);
        waiting
    }

    fn waits(waiting: &mut Waiting) -> bool {
        waiting.try_recv() == Err(TryRecvError::Empty)
    }

    #[test]
    fn who_comes_while_a_question_is_on_its_way_waits_for_the_answer_to_the_next() {
        let mut all = Parked::default();
        let mut first = parked(&mut all);
        assert!(all.wants_end());
        all.ask();
        assert!(!all.wants_end());
        let (mut second, mut third) = (parked(&mut all), parked(&mut all));
        assert!(all.wants_end());
        // The log may have said so before the second came.
        all.answered(5, 5);
        assert!(!waits(&mut first) && waits(&mut second) && waits(&mut third));
        all.ask();
        all.answered(7, 5);
        all.applied(6);
        assert!(waits(&mut second) && waits(&mut third), "offset 6 is not applied");
        all.applied(7);
        assert!(!waits(&mut second) && !waits(&mut third));
        assert_eq!(all.len(), 0);
    }

    #[test]
    fn there_is_room_for_so_many_and_who_is_gone_takes_none() {
        let mut all = Parked::default();
        let mut waiting: Vec<_> = (0..MOST).map(|_| parked(&mut all)).collect();
        assert!(waiting.iter_mut().all(waits));
        assert!(!waits(&mut parked(&mut all)), "it is let go at once");
        all.ask();
        all.answered(9, 0);
        drop(waiting.pop());
        assert_eq!(all.len(), MOST - 1);
        let mut late = parked(&mut all);
        assert!(waits(&mut late) && !waits(&mut parked(&mut all)));
        drop(late);
        assert!(!all.wants_end(), "for nobody the log is not asked");
    }

    #[test]
    fn nobody_waits_for_a_log_that_cannot_say_or_is_left() {
        let mut all = Parked::default();
        let mut asked = parked(&mut all);
        all.ask();
        let mut came = parked(&mut all);
        all.unanswered();
        assert!(!waits(&mut asked) && waits(&mut came) && all.wants_end());
        all.ask();
        all.misheard();
        assert!(waits(&mut came) && all.wants_end(), "it is asked again");
        all.ask();
        all.answered(3, 0);
        all.clear();
        assert!(!waits(&mut came));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write,
        Come,
        Ask,
        Answer,
        Apply,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step =
            prop_oneof![Just(Step::Write), Just(Step::Come), Just(Step::Ask), Just(Step::Answer), Just(Step::Apply)];
        proptest::collection::vec(step, 0..60)
    }

    proptest! {
        /// A log whose answer tells its end at any moment between question and answer; here at the earliest, that of the question.
        #[test]
        fn who_is_let_go_sees_what_was_written_before_it_came_and_in_the_end_everybody_is(steps in steps()) {
            let (mut all, mut written, mut next, mut question) = (Parked::default(), 0_u64, 0_u64, None);
            let mut waiting: Vec<(u64, Waiting)> = Vec::new();
            let end = [Step::Answer, Step::Ask, Step::Answer].into_iter();
            for step in steps.into_iter().chain(end) {
                match step {
                    Step::Write => written += 1,
                    Step::Come => waiting.push((written, parked(&mut all))),
                    Step::Ask if question.is_none() => {
                        all.ask();
                        question = Some(written);
                    }
                    Step::Answer => {
                        if let Some(end) = question.take() {
                            all.answered(end, next);
                        }
                    }
                    Step::Apply if next < written => {
                        next += 1;
                        all.applied(next);
                    }
                    Step::Ask | Step::Apply => {}
                }
                for (came_at, waiting) in &mut waiting {
                    prop_assert!(waits(waiting) || *came_at <= next, "came at {came_at}, let go at {next}");
                }
            }
            all.applied(written);
            prop_assert!(waiting.iter_mut().all(|(_, waiting)| !waits(waiting)));
        }
    }
}
