//! Keys as paths: tokens of log2(branch factor) bits, one a byte.

/// Cuts keys into tokens and packs tokens into bytes, for one branch factor.
#[derive(Clone, Copy)]
pub struct Codec {
    pub token_bits: usize,
    pub tokens_per_byte: usize,
}

impl Codec {
    /// Return the codec of a branch factor of 2, 4, 16 or 256; None for another.
    pub fn of(branch_factor: usize) -> Option<Codec> {
        match branch_factor {
            2 | 4 | 16 | 256 => {
                let token_bits = branch_factor.trailing_zeros() as usize;
                Some(Codec { token_bits, tokens_per_byte: 8 / token_bits })
            }
            _ => None,
        }
    }

    pub fn branch_factor(&self) -> usize {
        1 << self.token_bits
    }

    /// Append the path of a key.
    pub fn put_path(&self, to: &mut Vec<u8>, key: &[u8]) {
        match self.token_bits {
            8 => to.extend_from_slice(key),
            4 => {
                let start = to.len();
                to.resize(start + 2 * key.len(), 0);
                for (tokens, byte) in to[start..].chunks_exact_mut(2).zip(key) {
                    tokens.copy_from_slice(&[byte >> 4, byte & 15]);
                }
            }
            bits => {
                let mask = (1_u8 << bits) - 1;
                for byte in key {
                    to.extend((0..8 / bits).rev().map(|place| byte >> (place * bits) & mask));
                }
            }
        }
    }

    /// Append a path packed into bytes, zero padded at the end.
    pub fn put_packed(&self, to: &mut Vec<u8>, path: &[u8]) {
        if self.token_bits == 8 {
            to.extend_from_slice(path);
            return;
        }
        for tokens in path.chunks(self.tokens_per_byte) {
            let mut byte = 0;
            for (place, token) in tokens.iter().enumerate() {
                byte |= token << (8 - self.token_bits * (place + 1));
            }
            to.push(byte);
        }
    }
}

/// Return how many leading tokens two paths share.
pub fn shared_depth(first: &[u8], second: &[u8]) -> usize {
    first.iter().zip(second).take_while(|(one, other)| one == other).count()
}
