"""Texts of random words for the measuring scripts: each word is a token in common vocabularies, and no text is known yet."""
import random

WORDS = "river stone engine morning letter garden window number music winter silver bridge paper doctor market story".split()


def words(count):
    """So many of them."""
    return " ".join(random.choices(WORDS, k=count))
