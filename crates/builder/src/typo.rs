//! What somebody may have meant.

/// The candidate that is at most two slips (a letter more, less, other, or two swapped) away from `word`, if any.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded: Vec<char> = word.chars().take(65).flat_map(char::to_lowercase).collect();
    if folded.len() > 64 {
        return None;
    }
    // A short word is two slips away from nearly everything.
    let most = if folded.len() <= 3 { 1 } else { 2 };
    let scored = candidates.into_iter().filter(|c| c.len() <= 64).map(|candidate| {
        let other: Vec<char> = candidate.chars().flat_map(char::to_lowercase).collect();
        (slips(&folded, &other), candidate)
    });
    scored.filter(|(n, _)| *n <= most).min_by_key(|(n, _)| *n).map(|(_, candidate)| candidate)
}

/// The optimal string alignment distance.
fn slips(a: &[char], b: &[char]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let other = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + other);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_fingers_are_understood() {
        let names = ["RUN", "COPY", "FROM", "ENTRYPOINT", "WORKDIR"];
        for (typo, meant) in
            [("RNU", "RUN"), ("rum", "RUN"), ("COPPY", "COPY"), ("FORM", "FROM"), ("WORKIDR", "WORKDIR")]
        {
            assert_eq!(nearest(typo, names), Some(meant), "{typo}");
        }
        for other in ["", "apt-get", "X", &"y".repeat(10_000)] {
            assert_eq!(nearest(other, names), None);
        }
    }
}
