"""Variational autoencoders for images. Names below are imported when they are first asked for (PEP 562)."""

__version__ = "0.1.0"

from importlib import import_module

_names = dict(
    core="Head Conditional Terms check_head check_network",
    data="load_data Data",
    streams="Images Stream",
    encoders="MLPEncoder CNNEncoder",
    decoders="MLPDecoder CNNDecoder",
    posteriors="MeanField FullCovariance",
    priors="GaussianPrior LearnedMixture check_prior",
    likelihoods="HomoscedasticGaussian ImagewiseGaussian PixelwiseGaussian BernoulliLikelihood",
    discretised="DiscretisedLogistic dequantised",
    beta_nll="beta_nll_score",
    vae="VAE create_vae",
    objectives="elbo iwae",
    gradients="elbo_stl iwae_stl iwae_dreg",
    regularisers="free_bits tc_vae dip_vae info_vae kl_decomposition mmd linear_annealing cyclical_annealing",
    training="fit History",
    recipes="recipe",
    evaluation="evaluate",
    importance="log_likelihood bits_per_dimension",
    annealing="annealed_importance bidirectional",
    novelty="novelty_scores likelihood_regret DensityOfStates auroc roc_figure",
    latents="latent_numbers kl_figure embedding_figure inference_gaps gaps_figure",
    generation="pipeline_figure prior_figure traversal_figure neighbourhood_figure history_figure",
    fitted_priors="fit_prior with_prior FullCovariancePrior MixturePrior",
    widgets="LatentExplorer TraversalExplorer InterpolationPlayer NoiseExplorer TrainingMonitor",
    explorer="export_explorer",
    hidden_pixels="visible_posterior hidden_calibration hidden_figure",
    pixel_calibration="calibration calibration_figure calibration_panels predictive_check "
                      "hard_images hard_images_figure",
    reports="report compare",
)
_home = {name: module for module, names in _names.items() for name in names.split()}
__all__ = sorted(_home)


def __getattr__(name):
    if name not in _home:
        raise AttributeError(f"module 'vae_nb' has no attribute {name!r}")
    value = getattr(import_module(f"vae_nb.{_home[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
