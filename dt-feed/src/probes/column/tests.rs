use proptest::prelude::*;

use super::*;

fn column() -> impl Strategy<Value = Vec<u64>> {
    let value = (any::<u64>(), 0..=63_u32, any::<bool>());
    let value = value.prop_map(|(value, shift, minus)| {
        if minus {
            (value >> shift).wrapping_neg()
        } else {
            value >> shift
        }
    });
    prop::collection::vec(value, 0..400)
}

proptest! {
    #[test]
    fn a_column_is_lossless(values in column()) {
        let bytes = encode(values.iter().copied());
        prop_assert_eq!(decode(&bytes, values.len()), Ok(values));
    }

    #[test]
    fn a_column_near_a_line_is_lossless(start in any::<u64>(), steps in prop::collection::vec(0..5000_u64, 0..400)) {
        let line = steps.iter().scan(start, |at, step| { *at = at.wrapping_add(*step); Some(*at) });
        let values: Vec<u64> = line.collect();
        let bytes = encode(values.iter().copied());
        prop_assert_eq!(decode(&bytes, values.len()), Ok(values));
    }

    #[test]
    fn noise_is_a_column_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), rows in 0..300_usize) {
        if let Ok(values) = decode(&bytes, rows) {
            prop_assert_eq!(values.len(), rows);
        }
    }

    #[test]
    fn a_column_cut_short_is_an_error(values in column(), cut in 1..50_usize) {
        let bytes = encode(values.iter().copied());
        let kept = bytes.len().saturating_sub(cut);
        prop_assume!(kept > 0);
        prop_assert_eq!(decode(&bytes[..kept], values.len()), Err(BrokenColumn));
    }
}

#[test]
fn equal_and_evenly_spaced_values_cost_next_to_nothing() {
    assert_eq!(encode(std::iter::repeat_n(0, 1000)), Vec::<u8>::new());
    assert!(encode(std::iter::repeat_n(7, 1024)).len() <= 24);
    assert!(encode(0..1024).len() <= 32);
}

#[test]
fn a_few_young_sessions_among_old_ones_do_not_widen_the_old_ones() {
    let old: Vec<u64> = (0..FRAME_ROWS as u64).map(|row| 86_400 - row % 4).collect();
    let mut mixed = old.clone();
    for (row, age) in [
        (3, 70),
        (40, 21_000),
        (41, 22_000),
        (77, 47_000),
        (101, 80_000),
    ] {
        mixed[row] = age;
    }
    let bare = encode(old.iter().copied()).len();
    assert!(encode(mixed.into_iter()).len() <= bare + 5 * 4);
}

#[test]
fn a_column_that_changes_its_nature_is_lossless_and_hardly_longer() {
    let line = (0..4_000).map(|row| row * 1_000 + row % 3);
    let noise = (0..4_000).map(|row: u64| row.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 50);
    let values: Vec<u64> = line
        .clone()
        .chain(noise.clone())
        .chain(line.clone())
        .collect();
    let bytes = encode(values.iter().copied());
    let apart = 2 * encode(line).len() + encode(noise).len();
    // Two frames hold some of both.
    assert!(bytes.len() <= apart + apart / 20, "{} {apart}", bytes.len());
    assert_eq!(decode(&bytes, values.len()), Ok(values));
}

#[test]
fn an_outlier_on_either_side_does_not_widen_the_others() {
    let steady: Vec<u64> = (0..FRAME_ROWS as u64)
        .map(|row| 50_000 + row * 7 % 16)
        .collect();
    let bare = encode(steady.iter().copied()).len();
    for outlier in [0, 3_000_000_000] {
        let mut values = steady.clone();
        values[77] = outlier;
        assert!(encode(values.into_iter()).len() <= bare + 8, "{outlier}");
    }
}

#[test]
fn a_tiny_input_cannot_claim_much_memory() {
    let values = decode(&[0, 0, 2], 1_000_000);
    assert_eq!(values, Err(BrokenColumn));
}
