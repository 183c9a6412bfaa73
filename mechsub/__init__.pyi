# What editors and type checkers see of the lazy names in __init__.py; tests/test_import.py holds the two together.

from mechsub import doctor as doctor
from mechsub import files as files
from mechsub import lab as lab
from mechsub import processes as processes
from mechsub import sources as sources
from mechsub import stats as stats
from mechsub import threads as threads
from mechsub.designs import numbers as numbers
from mechsub.designs.numbers import draw_numbers as draw_numbers
from mechsub.designs.numbers import sample_numbers as sample_numbers
from mechsub.inputs import corpora as corpora
from mechsub.inputs import images as images
from mechsub.inputs import noise as noise
from mechsub.inputs import prompts as prompts
from mechsub.inputs import words as words
from mechsub.inputs.corpora import Corpus as Corpus
from mechsub.inputs.corpora import read_corpus as read_corpus
from mechsub.inputs.corpora import write_corpus as write_corpus
from mechsub.inputs.images import fashion_mnist as fashion_mnist
from mechsub.inputs.images import mnist as mnist
from mechsub.inputs.prompts import chat as chat
from mechsub.inputs.prompts import single_tokens as single_tokens
from mechsub.lab import exports as exports
from mechsub.lab import frames as frames
from mechsub.lab import hub as hub
from mechsub.lab import imports as imports
from mechsub.lab import lease as lease
from mechsub.lab import options as options
from mechsub.lab import probes as probes
from mechsub.lab import progress as progress
from mechsub.lab import recheck as recheck
from mechsub.lab import remaking as remaking
from mechsub.lab import store as store
from mechsub.lab import study as study
from mechsub.lab import verify as verify
from mechsub.lab import versions as versions
from mechsub.lab.figures import colors as colors
from mechsub.lab.figures import kinds as kinds
from mechsub.lab.frames import frame as frame
from mechsub.lab.progress import progress_bar as progress_bar
from mechsub.machine import cores as cores
from mechsub.machine import devices as devices
from mechsub.machine import memory as memory
from mechsub.machine import packages as packages
from mechsub.machine import provenance as provenance
from mechsub.measures import ablation as ablation
from mechsub.measures import attribution as attribution
from mechsub.measures import bottleneck as bottleneck
from mechsub.measures import class_offsets as class_offsets
from mechsub.measures import divergence as divergence
from mechsub.measures import functions as functions
from mechsub.measures import lens as lens
from mechsub.measures import scores as scores
from mechsub.measures import similarity as similarity
from mechsub.measures import spectra as spectra
from mechsub.measures import steering as steering
from mechsub.measures import tangent as tangent
from mechsub.measures import tangent_modes as tangent_modes
from mechsub.measures import teacher_line as teacher_line
from mechsub.measures import unembedding as unembedding
from mechsub.measures.ablation import ablated_columns as ablated_columns
from mechsub.measures.ablation import ablated_hidden as ablated_hidden
from mechsub.measures.ablation import direction_basis as direction_basis
from mechsub.measures.attribution import Attribution as Attribution
from mechsub.measures.attribution import direct_logit_attribution as direct_logit_attribution
from mechsub.measures.bottleneck import cheapest_change as cheapest_change
from mechsub.measures.bottleneck import isotropic_price as isotropic_price
from mechsub.measures.bottleneck import price as price
from mechsub.measures.class_offsets import accuracies as accuracies
from mechsub.measures.class_offsets import mean_offset as mean_offset
from mechsub.measures.class_offsets import prior_offset as prior_offset
from mechsub.measures.divergence import prompt_divergence as prompt_divergence
from mechsub.measures.functions import check_model as check_model
from mechsub.measures.interaction_parts import interaction_parts as interaction_parts
from mechsub.measures.interaction_parts import left_like as left_like
from mechsub.measures.lens import logit_lens as logit_lens
from mechsub.measures.scores import interaction as interaction
from mechsub.measures.scores import next_token_log_probs as next_token_log_probs
from mechsub.measures.scores import string_log_probs as string_log_probs
from mechsub.measures.similarity import hidden_alignment as hidden_alignment
from mechsub.measures.similarity import linear_cka as linear_cka
from mechsub.measures.steering import steered_logits as steered_logits
from mechsub.measures.teacher_line import line_shares as line_shares
from mechsub.measures.teacher_line import on_line as on_line
from mechsub.measures.unembedding import token_directions as token_directions
from mechsub.measures.unembedding import unembed as unembed
from mechsub.measures.unembedding import unembed_projection as unembed_projection
from mechsub.models import checks as checks
from mechsub.models import hooked as hooked
from mechsub.models import language as language
from mechsub.models import mlp as mlp
from mechsub.models import students as students
from mechsub.models.hooked import HookedModel as HookedModel
from mechsub.models.hooked import cache_activations as cache_activations
from mechsub.models.hooked import hidden_names as hidden_names
from mechsub.models.hooked import run_patched as run_patched
from mechsub.models.language import load_language_model as load_language_model
from mechsub.models.mlp import HookedMLP as HookedMLP
from mechsub.models.mlp import MLPConfig as MLPConfig
from mechsub.models.students import Students as Students
from mechsub.stats import Interval as Interval
from mechsub.training import distillation as distillation
from mechsub.training import fitting as fitting
from mechsub.training import linearised as linearised
from mechsub.training import removal as removal
from mechsub.training import together as together
from mechsub.training import tuning as tuning
from mechsub.training.distillation import accuracy as accuracy
from mechsub.training.distillation import distill as distill
from mechsub.training.distillation import distill_each as distill_each
from mechsub.training.distillation import train as train
from mechsub.training.linearised import linearised_student as linearised_student
from mechsub.training.tuning import TuningRecipe as TuningRecipe
from mechsub.training.tuning import tune as tune

__version__: str

# Older names of modules that have moved.
audit = verify
data = images
entanglement = scores
flags = options
plot = kinds
projection = removal
vocabulary = words
