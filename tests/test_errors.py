from tokenadapt.errors import MissingExtraError, RequestError, TokenAdaptError


def test_an_error_says_what_was_wrong_and_what_to_do():
    error = RequestError("The folder x is empty.", "Name a folder that holds a model.")
    assert str(error) == "The folder x is empty. Name a folder that holds a model."
    assert (error.exit_code, TokenAdaptError("failed").exit_code) == (2, 1)


def test_a_missing_extra_names_the_pip_line():
    error = MissingExtraError("--space st:NAME", "sentence-transformers", "st")
    assert "pip install 'tokenadapt[st]'" in error.hint
