//! What is asked: the seed's prompts, and texts of random words, each of which is one token in common vocabularies.
//! Random words make every prompt new: no cache can know it, and no counter in front makes it longer.

use fastrand::Rng;

/// The prompts of the report that started this project (2026-01-19), in its order.
pub(super) const SEED_PROMPTS: [&str; 5] = [
    "人工智能是计算机科学的一个分支，它企图了解智能的实质，并生产出一种新的能以人类智能相似的方式做出反应的智能机器。",
    "机器学习是人工智能的一个分支，它使计算机能够在不被明确编程的情况下从数据中学习。",
    "深度学习是机器学习的一个子集，它模仿人脑的工作方式来学习数据中的模式。",
    "自然语言处理是人工智能领域中的一个重要方向，致力于让计算机理解和生成人类语言。",
    "计算机视觉是人工智能的一个重要应用领域，旨在让计算机能够像人类一样理解和解释图像和视频。",
];

const WORDS: [&str; 64] = [
    "river", "stone", "engine", "morning", "letter", "garden", "window", "number", "music", "winter", "silver",
    "bridge", "paper", "doctor", "market", "story", "water", "house", "table", "green", "field", "mountain", "light",
    "summer", "school", "family", "country", "village", "animal", "flower", "picture", "machine", "island", "ocean",
    "forest", "street", "kitchen", "teacher", "science", "history", "language", "system", "energy", "planet", "metal",
    "glass", "bread", "horse", "train", "ship", "road", "tree", "leaf", "cloud", "rain", "snow", "wind", "fire",
    "earth", "sand", "gold", "iron", "wood", "wool",
];

/// A short question about random things, of about 20 tokens.
pub(super) fn short(rng: &mut Rng) -> String {
    format!("Write about the {}.", words(rng, 12))
}

/// `count` random words.
pub(super) fn words(rng: &mut Rng, count: usize) -> String {
    let mut text = String::with_capacity(count * 8);
    for index in 0..count {
        if index > 0 {
            text.push(' ');
        }
        text.push_str(WORDS[rng.usize(..WORDS.len())]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_prompts_have_the_lengths_of_its_table() {
        // 928 "tokens" of its sequential run are 10 × 50 and these characters twice.
        let characters = SEED_PROMPTS.map(|prompt| prompt.chars().count());
        assert_eq!(characters, [56, 40, 35, 39, 44]);
        assert_eq!(10 * 50 + 2 * characters.iter().sum::<usize>(), 928);
    }

    #[test]
    fn a_prompt_is_new_every_time() {
        let mut rng = Rng::with_seed(1);
        assert_ne!(short(&mut rng), short(&mut rng));
        assert_eq!(words(&mut rng, 400).split(' ').count(), 400);
    }
}
