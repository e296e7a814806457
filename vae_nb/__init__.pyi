"""The public names, by room. They are imported when they are first asked for; type checkers and editors read them here."""

# core: the one idea
from .core import (
    Conditional as Conditional,
    Head as Head,
    Terms as Terms,
    check_head as check_head,
    check_network as check_network,
    kl_per_dimension as kl_per_dimension,
    pixel_log_prob as pixel_log_prob,
)

# data: images
from .data.built_in import generate_images as generate_images
from .data.splits import Data as Data
from .data.streams import IndexedImages as IndexedImages, Stream as Stream
from .data.loading import load_data as load_data

# networks: encoders and decoders, and labels
from .networks.encoders import CNNEncoder as CNNEncoder, MLPEncoder as MLPEncoder, Network as Network
from .networks.decoders import CNNDecoder as CNNDecoder, MLPDecoder as MLPDecoder
from .networks.residual import ResNetDecoder as ResNetDecoder, ResNetEncoder as ResNetEncoder
from .networks.labels import Labelled as Labelled
from .networks.branches import Branches as Branches

# distributions: posteriors, priors, likelihoods
from .distributions.posteriors import FullCovariance as FullCovariance, MeanField as MeanField
from .distributions.priors import (
    FullCovariancePrior as FullCovariancePrior,
    GaussianPrior as GaussianPrior,
    LearnedMixture as LearnedMixture,
    MixturePrior as MixturePrior,
    check_prior as check_prior,
)
from .distributions.likelihoods import (
    BernoulliLikelihood as BernoulliLikelihood,
    HomoscedasticGaussian as HomoscedasticGaussian,
    ImagewiseGaussian as ImagewiseGaussian,
    PixelwiseGaussian as PixelwiseGaussian,
)
from .distributions.beta_nll import beta_nll_score as beta_nll_score
from .distributions.discretised import DiscretisedLogistic as DiscretisedLogistic, dequantised as dequantised
from .distributions.levels import CategoricalLikelihood as CategoricalLikelihood
from .distributions.correlated_noise import LowRankGaussian as LowRankGaussian
from .distributions.richer_posteriors import LowRank as LowRank, MixturePosterior as MixturePosterior

# models: a VAE, built, saved and loaded
from .models.vae import VAE as VAE, create_vae as create_vae, evaluating as evaluating, prepare_images as prepare_images
from .models.fitted_priors import fit_prior as fit_prior, with_prior as with_prior
from .models.refinement import refine as refine

# training: objectives, regularisers, fit
from .training.objectives import elbo as elbo, iwae as iwae
from .training.gradient_estimators import elbo_stl as elbo_stl, iwae_dreg as iwae_dreg, iwae_stl as iwae_stl
from .training.regularisers import (
    cyclical_annealing as cyclical_annealing,
    dip_vae as dip_vae,
    free_bits as free_bits,
    info_vae as info_vae,
    kl_decomposition as kl_decomposition,
    linear_annealing as linear_annealing,
    mmd as mmd,
    tc_vae as tc_vae,
)
from .training.optimisers import Muon as Muon
from .training.recipes import recipe as recipe
from .training.runs import History as History
from .training.fit import TrainingStep as TrainingStep, fit as fit

# generation: figures of a trained model
from .generation.model_figures import (
    class_figure as class_figure,
    history_figure as history_figure,
    neighbourhood_figure as neighbourhood_figure,
    pipeline_figure as pipeline_figure,
    prior_figure as prior_figure,
    traversal_figure as traversal_figure,
)

# evaluation: what a trained model is worth
from .evaluation.metrics import evaluate as evaluate
from .evaluation.importance import bits_per_dimension as bits_per_dimension, log_likelihood as log_likelihood
from .evaluation.annealing import annealed_importance as annealed_importance, bidirectional as bidirectional
from .evaluation.calibration import (
    calibration as calibration,
    calibration_figure as calibration_figure,
    calibration_panels as calibration_panels,
    hard_images as hard_images,
    hard_images_figure as hard_images_figure,
    predictive_check as predictive_check,
)
from .evaluation.inpainting import (
    inpainting_calibration as inpainting_calibration,
    inpainting_figure as inpainting_figure,
    posterior_given_visible as posterior_given_visible,
)
from .evaluation.novelty import (
    DensityOfStates as DensityOfStates,
    auroc as auroc,
    likelihood_regret as likelihood_regret,
    novelty_scores as novelty_scores,
    roc_figure as roc_figure,
    typicality as typicality,
    waic as waic,
)
from .evaluation.latents import (
    embedding_figure as embedding_figure,
    gaps_figure as gaps_figure,
    inference_gaps as inference_gaps,
    kl_figure as kl_figure,
    latent_numbers as latent_numbers,
)
from .evaluation.disentanglement import disentanglement as disentanglement, factor_figure as factor_figure
from .evaluation.sample_quality import sample_quality as sample_quality
from .evaluation.reports import compare as compare, report as report

# apply: what one does with a trained model
from .apply.encoding import (
    attribute_vector as attribute_vector,
    encode_all as encode_all,
    latent_table as latent_table,
    nearest as nearest,
)
from .apply.estimator import VAETransformer as VAETransformer
from .apply.export import export_model as export_model
from .apply.pictures import write_reconstructions as write_reconstructions
from .apply.novel_images import novelty_sheet as novelty_sheet, novelty_table as novelty_table
from .apply.hub import model_card as model_card

# explore: widgets, and a page for the browser
from .explore.sliders import LatentExplorer as LatentExplorer
from .explore.walks import InterpolationPlayer as InterpolationPlayer, TraversalExplorer as TraversalExplorer
from .explore.noise import NoiseExplorer as NoiseExplorer
from .explore.monitor import TrainingMonitor as TrainingMonitor
from .explore.web import export_explorer as export_explorer
from .explore.films import write_film as write_film
from .explore.playground import export_playground as export_playground

# basics: arguments, errors and figures
from .basics.checks import (
    InputError as InputError,
    InputTypeError as InputTypeError,
    MissingPackageError as MissingPackageError,
)
from .basics.figures import (
    Picture as Picture,
    curves as curves,
    draw_image as draw_image,
    draw_latent as draw_latent,
    draw_sigma as draw_sigma,
    figure_style as figure_style,
    image_grid as image_grid,
    save_figure as save_figure,
)

__version__: str
