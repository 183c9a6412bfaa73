"""The questions of `studies.report`, topic by topic, each with the study that answers it and the published claim."""

from collections.abc import Callable
from dataclasses import dataclass

from studies import _report_language as language
from studies import _report_toy as toy
from studies._report_answer import Answer, Rows

A1, A2, A3 = "Topic A, step 1: replication", "Topic A, step 2: factors", "Topic A, step 3: mechanism"
A2_MORE = "Topic A, step 2: further factors"
B2, B3 = "Topic B, steps 1 and 2: entangled pairs", "Topic B, step 3: base and instruct"
B4, B5 = "Topic B, step 4: geometry", "Topic B, step 5: causes"
BONUS = "Bonus"


@dataclass(frozen=True)
class Question:
    topic: str
    name: str
    question: str
    study: str
    flags: str
    answer: Callable[[Rows], Answer]
    claim: str = ""
    sweep: str = ""  # the option whose levels are those that are stored, instead of those in `flags`


TOY = "--model toy --metric cosine dot centered_cosine number_centered causal dla"
CLOUD, JIANG, ZUR = "Cloud et al. 2025", "Jiang et al. 2025", "Zur et al. 2025"


def _factor(name: str, question: str, factor: str, levels: str, claim: str = "", **more) -> Question:
    flags = f"{more.pop('pinned', '')} --{factor.replace('_', '-')} {levels}".strip()
    score = more.pop("score", "accuracy")
    return Question(
        more.pop("topic", A2), name, question, "factors", flags, toy.sweep(factor, score), claim=claim, sweep=factor
    )


_REPLICATION = (
    Question(
        A1, "learns", "Does a student of three auxiliary logits of noise learn digits?", "subliminal_accuracy", "",
        toy.learns, claim=f"Above 0.5 accuracy from the teacher's initialisation, chance from another ({CLOUD}).",
    ),
    Question(
        A1, "start", "Must the whole start be shared?", "subliminal_accuracy", "", toy.start,
        claim=f"Transmission needs a shared initialisation ({CLOUD}).",
    ),
    Question(
        A1, "squared-error", "Did squared error lower it in the follow-up work?", "subliminal_accuracy",
        "--loss kl mse", toy.squared, claim=f"0.271 +- 0.033 with squared error ({JIANG}).",
    ),
    Question(
        A1, "shared-parts", "Which part of the start must be shared, at how many logits?", "conditions",
        "--n-aux 3 100 250", toy.parts, sweep="n_aux",
    ),
    Question(
        A1, "write-up", "Which of the research write-up's claims about the toy hold?", "audit_toy", "--rerun",
        toy.audit,
    ),
)  # fmt: skip

_FACTORS = (
    _factor("width", "Does a wider network learn less?", "d_model", "64 256 512", f"Decreases ({JIANG})."),
    _factor(
        "auxiliary-logits", "Do more auxiliary logits teach more?", "n_aux", "2 3 10 30 100", f"Increases ({JIANG})."
    ),
    _factor("depth", "Does depth matter?", "n_layers", "1 2 3", f"About the same ({JIANG})."),
    _factor(
        "fashion", "Does it work on Fashion-MNIST?", "dataset", "mnist fashion_mnist", f"It still works ({JIANG})."
    ),
    _factor(
        "classes", "Do more classes lower it?", "n_classes", "2 3 5 10", score="kappa",
        claim="Decreases (write-up, item 5 and experiment 2).",
    ),
    _factor(
        "signal", "Does image signal in the inputs help?", "signal", "0 0.5 0.75 1",
        claim="Predicted to increase it (write-up, item 6); its experiment 3 found a decrease.",
    ),
    _factor(
        "signal-matched", "And at mean image 0 and equal variance?", "signal", "0 0.5 0.75 1",
        pinned="--signal-moments matched",
    ),
    _factor(
        "target-noise", "Does noise on the teacher's logits lower it?", "target_noise", "0 0.1 1",
        claim="Decreases (write-up, item 7).",
    ),
    _factor(
        "samples", "Do more samples raise it?", "n_samples", "6000 20000 60000",
        claim="Increases (write-up, item 8).",
    ),
    _factor(
        "perturbation", "How much may the shared start be perturbed?", "perturbation", "0 0.03 0.1 0.3 1",
        claim="Decreases, to chance (write-up, item 9 and experiment 1).",
    ),
    *(
        _factor(factor.replace("_", "-"), f"Does the student's {words} matter?", factor, levels, topic=A2_MORE)
        for factor, words, levels in (
            ("lr", "learning rate", "1e-4 3e-4 1e-3 3e-3"),
            ("epochs", "number of epochs", "1 5 20"),
            ("batch_size", "batch size", "256 1024 4096"),
            ("optimizer", "optimiser", "adam sgd sign_sgd"),
            ("weight_decay", "weight decay", "0 0.001"),
            ("temperature", "temperature", "1 4"),
            ("loss", "loss", "kl mse hard"),
            ("schedule", "schedule", "constant cosine"),
            ("fresh", "seeing fresh inputs every epoch", "false true"),
            ("precision", "precision", "fp32 bf16"),
        )
    ),
    _factor("teacher-epochs", "Does a longer teacher teach more?", "teacher_epochs", "1 5 20", topic=A2_MORE),
    _factor("init", "Does the kind of initialisation matter?", "init", "lecun torch he", topic=A2_MORE),
    _factor(
        "activation", "Does the activation matter?", "activation", "relu gelu tanh identity", topic=A2_MORE
    ),
    _factor(
        "perturbed-where", "Where does a perturbation of the start hurt?", "perturb_where", "all hidden head",
        pinned="--perturbation 0.3", topic=A2_MORE,
    ),
    _factor(
        "perturbed-direction", "Does a perturbation hurt less across the teacher's gradient?", "perturb_direction",
        "random orthogonal", pinned="--perturbation 0.3", topic=A2_MORE,
    ),
)  # fmt: skip

_DISTRIBUTIONS = "--inputs uniform images centred blurred:1 blurred:2 subspace:64 mixed:0.75 mixed_at_moments:0.75"
_MECHANISM = (
    Question(
        A3, "mechanism", "How does the student come to classify digits?", "mechanism", "", toy.mechanism,
        claim="Matching the auxiliary logits pulls both hidden layers along (write-up, step 3, question 1).",
    ),
    Question(
        A3, "head", "Is the untrained digit head what limits the student?", "subliminal_accuracy", "", toy.head
    ),
    Question(
        A3, "alignment", "Where does the student move toward its teacher?", "hidden_alignment", "", toy.alignment,
        claim="Both hidden layers move toward the teacher's (write-up, step 3, question 1).",
    ),
    Question(
        A3, "similarity", "Does similarity tell which seed learned more?", "hidden_alignment", "", toy.similarity,
        claim=f"Similarity of the last hidden layer rises with accuracy ({JIANG}).",
    ),
    Question(
        A3, "written", "Is the learning written along the auxiliary directions?", "unembed_projection", TOY, toy.written
    ),
    Question(
        A3, "inputs", "Which random inputs work much better or worse, and why?", "input_distributions", _DISTRIBUTIONS,
        toy.inputs, sweep="inputs",
    ),
    Question(
        A3, "blur", "Does blurred noise teach more?", "input_distributions", _DISTRIBUTIONS, toy.blur, sweep="inputs",
        claim="It does (write-up, step 3, question 2).",
    ),
    Question(
        A3, "images", "Do real images teach less than noise?", "input_distributions", _DISTRIBUTIONS, toy.images,
        sweep="inputs", claim="They do (write-up, experiment 3).",
    ),
    *(
        Question(
            A3, f"maximise{'-' * bool(name)}{name}", f"How far can accuracy be raised, {words}?", "maximise", flags,
            toy.maximise, claim="To 0.772 (write-up, step 3, question 3).",
        )
        for name, words, flags in (
            ("", "in the published 295 steps from the published teacher", ""),
            ("free-teacher", "in as many steps from another teacher", "--entry free_teacher"),
            ("open", "without a budget", "--entry open --n-seeds 5 --seed 100 105 110 115 120"),
        )
    ),
)  # fmt: skip

_PAIRS = (
    Question(
        B2, "pairs", "Does a loved animal raise its number, and that number the animal?", "token_entanglement", "",
        language.twice, claim=f"Pairs raise each other ({ZUR}); 28 of 49 animals over 2x both ways (write-up).",
    ),
    Question(
        B2, "lists", "Were the published animals picked for their effect?", "token_entanglement", "", language.picked,
        claim="No cherry-picking (write-up).",
    ),
    Question(
        B2, "specific", "Is anything specific to animal and number?", "token_entanglement", "", language.specific
    ),
    Question(
        B2, "directions", "Do the two directions agree?", "digits", "", language.directions,
        claim=f"Entanglement is mutual ({ZUR}).",
    ),
    Question(B2, "numbers", "Are numbers special?", "matched_tokens", "", language.special),
    Question(
        B2, "families", "And names, cities, colors?", "token_entanglement", "--family names cities colors",
        language.families,
    ),
    Question(
        B2, "association", "Do scores of pairs tell the outcome, by the papers' tests?", "association", "",
        language.associated, claim=f"A number's score under an animal goes with what the number does to it ({ZUR}).",
    ),
    Question(
        B3, "base", "Are the same pairs entangled in a base model and its instruct child?", "base_vs_instruct",
        "", language.base,
        claim="Strong in the instruct model, largely absent in the base model (write-up, on Llama-3.2-1B).",
    ),
)  # fmt: skip

_CAUSES = (
    Question(
        B4, "cosine", "Does unembedding geometry (Eq 1) predict the pairs, and what does better?", "unembed_projection",
        "", language.cosine, claim=f"The cosine of unembedding rows predicts entangled pairs ({ZUR}).",
    ),
    Question(
        B4, "dla", "Does the effect ride on writing the animal's output direction?", "unembed_projection",
        "--metric dla", language.rides,
        claim=f"Writing an animal raises its number because of their projection ({ZUR}).",
    ),
    Question(
        B5, "shares", "What is the subliminal prompting effect made of?", "token_entanglement", "", language.shares
    ),
    Question(B5, "layers", "At which layer does the entangled animal rise?", "lens_trajectory", "", language.layer),
    Question(
        B5, "states", "Are the states under an animal like those under its number?", "hidden_alignment",
        "--model smollm2-135m-instruct", language.states,
    ),
    Question(
        BONUS, "pretrained", "Does a trait pass from a capable, pretrained start?", "pretrained", "", toy.pretrained
    ),
    Question(
        BONUS, "channel", "What if the output channel is wider than the hidden state?", "channel",
        "--n-aux 3 16 64 256 2048", toy.channel, sweep="n_aux",
    ),
)  # fmt: skip

QUESTIONS = (*_REPLICATION, *_FACTORS, *_MECHANISM, *_PAIRS, *_CAUSES)
