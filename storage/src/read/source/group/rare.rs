//! The rows that can hold what a condition asks for, where the file lists the rows of rare values.

use vivace_traceql::Condition;

use super::Group;
use crate::read::{error::Result, rare::RareRows, rows::RowSet, values::to_usize};

/// As many pages are read as quickly as a list.
const FEW_PAGES: usize = 2;
/// More entries are not looked up one by one.
const MOST_ENTRIES: usize = 4096;

/// Rows of a column that can hold what a condition asks for, none when that is not known.
pub(super) type Known = (usize, Condition, Option<RowSet>);

impl Group<'_> {
    /// Those of `rows` that can hold a value of the dictionary that passes, where that is known and spares pages.
    pub(in crate::read::source) fn rows_with_rare(
        &mut self,
        leaf: usize,
        condition: &Condition,
        rows: &RowSet,
    ) -> Result<Option<RowSet>> {
        let listed = self.block.row_group(self.number)?.chunks.get(leaf).and_then(|chunk| chunk.rare);
        let Some(place) = listed else { return Ok(None) };
        let at = match self.rare.iter().position(|(of, known, _)| *of == leaf && known == condition) {
            Some(at) => at,
            None => {
                let pages = self.leaf(leaf)?.reader.page_numbers(rows);
                if pages.is_none_or(|pages| pages.len() <= FEW_PAGES) {
                    return Ok(None);
                }
                let found = self.find_rare(leaf, condition, place)?;
                self.rare.push((leaf, condition.clone(), found));
                self.rare.len() - 1
            }
        };
        Ok(self.rare[at].2.as_ref().map(|known| rows.intersect(known)))
    }

    fn find_rare(&mut self, leaf: usize, condition: &Condition, (offset, len): (u64, u32)) -> Result<Option<RowSet>> {
        let Some(passing) = self.passing(leaf, condition)? else { return Ok(None) };
        // Where most pages are read all the same, it is simpler to look at all rows.
        let few = self.rows / 4;
        if passing.count() >= to_usize(few).min(MOST_ENTRIES) {
            return Ok(None);
        }
        let bytes = self.block.data().read(offset..offset + u64::from(len))?;
        let reader = &mut self.leaf(leaf)?.reader;
        reader.bytes_read += u64::from(len);
        reader.requests += 1;
        let list = RareRows::new(&bytes, passing.len(), self.rows)?;
        let found = list.rows_of(passing.ones_iter())?;
        Ok(found.filter(|found| found.len() < few))
    }
}
