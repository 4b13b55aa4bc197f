"""The words of the report, in plain ones."""

from __future__ import annotations

from minigpt.report.html import Html, element

TERMS = {
    "token": "A piece of text that the model reads and writes as one: a common word, a part of a rarer one, or a "
    "single character or byte, as the tokenizer cuts it.",
    "loss": "How surprised the model is by the next token, on average: -ln of the probability that it gave to the "
    "token that came (cross-entropy, in nats). 0 would be clairvoyance; ln(vocabulary) is knowing nothing.",
    "perplexity": "The same as a number of choices: as if the model guessed among so many tokens, all equally "
    "likely. It is exp(loss).",
    "bits per byte": "How many bits the model needs for a byte of text. Unlike loss and perplexity it does not "
    "depend on how the tokenizer cuts, so it can be compared across tokenizers.",
    "uniform, unigram, bigram": "Yardsticks: a model that knows nothing; one that knows how often each token "
    "occurs; and one that knows what follows the token before. A model that loses to the bigram has not learned "
    "to read context.",
    "95 % interval": "Where the figure lies in 95 of 100 texts made of documents like these (bootstrap over "
    "documents). Between two runs on the same text, look at the interval of their difference, which is far "
    "narrower: documents that are hard for one are hard for the other. None of them says what another seed would do.",
    "epoch": "One pass over the whole training text.",
    "validation": "Measuring on text that is kept out of training. Where the training loss goes on falling and "
    "the validation loss rises, the model learns by heart (overfitting).",
    "calibration error": "If the model is 70 % sure, is it right 70 % of the time? The mean gap between the two.",
    "learning rate": "How far each step moves the weights.",
    "gradient norm": "How steep the loss is where the model stands. A step whose gradient is too large is clipped.",
    "update": "How much a step changed the weights of a part, beside their own size. About a thousandth is usual; "
    "the right size depends on the optimizer.",
    "silent units, saturated heads": "Hidden units that answer to nothing in a sample of text; attention heads "
    "that look at one token only.",
    "temperature": "How adventurous the model writes: at 0 it always takes its first guess, at 1 it draws by its "
    "own probabilities.",
    "distinct-n": "Of all runs of n words and marks in a group of samples, the share that are different from each "
    "other (Li et al. 2016). Low: the samples say the same again and again.",
    "self-BLEU": "How alike the samples of a group are to each other, from 0 to 1 (Zhu et al. 2018). High: little "
    "variety.",
    "repetition": "Share of a sample's runs of four words and marks that occurred before in the same sample (Welleck "
    "et al. 2020).",
    "copied": "What of a sample stands word for word in the training text: the longest run, and the share of its "
    "runs of eight tokens that do. Real text that the model has not seen shows how much is usual.",
}


def glossary() -> Html:
    """Returns the terms as a list."""
    return element("dl", [[element("dt", term), element("dd", meaning)] for term, meaning in TERMS.items()])
