"""Who we are to an S3 store: credentials from where every AWS tool looks for them."""

import configparser
import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from xml.etree.ElementTree import ParseError

from minio.credentials.credentials import Credentials
from minio.credentials.providers import AWSConfigProvider, EnvAWSProvider, IamAwsProvider, Provider
from urllib3 import PoolManager
from urllib3.exceptions import HTTPError, MaxRetryError

from components.step import StepError, UserError
from components.storage import connection

METADATA_SECONDS = 2.0
"""For an answer of the machine's own metadata service, which is near or not there at all."""

AWS_STS = "https://sts.amazonaws.com"


class Identity(Provider):
    """Credentials, and where they come from: the first place that is set of

    the environment (AWS_ACCESS_KEY_ID), a token of web identity (AWS_WEB_IDENTITY_TOKEN_FILE), a file
    (AWS_SHARED_CREDENTIALS_FILE), the container's or the instance's metadata service. botocore has the same order.
    """

    def __init__(self, sts: str | None) -> None:
        self.sts = sts
        self._lock = threading.Lock()
        self._credentials: Credentials | None = None

    @property
    def source(self) -> str:
        """The variable, or the service, that a person has to look at."""
        return self._place(os.environ)[0]

    def _place(self, variables: Mapping[str, str]) -> tuple[str, Provider]:
        if variables.get("AWS_ACCESS_KEY_ID") and variables.get("AWS_SECRET_ACCESS_KEY"):
            return "AWS_ACCESS_KEY_ID", EnvAWSProvider()
        if variables.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
            http = connection.pool(self.sts or AWS_STS)
            return "AWS_WEB_IDENTITY_TOKEN_FILE", IamAwsProvider(custom_endpoint=self.sts, http_client=http)
        if variables.get("AWS_SHARED_CREDENTIALS_FILE") or (Path.home() / ".aws/credentials").exists():
            return "AWS_SHARED_CREDENTIALS_FILE", AWSConfigProvider()
        patience = connection.Patience.usual()
        if self._credentials is None:  # where no such service has ever answered, there may be none
            patience = patience.new(connect=1, read=1)
        near = PoolManager(timeout=METADATA_SECONDS, retries=patience)
        for variable in ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"):
            if variables.get(variable):
                return variable, IamAwsProvider(http_client=near)
        if variables.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
            raise UserError("store is not usable: there are no credentials; see AWS_ACCESS_KEY_ID")
        endpoint = variables.get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
        return "AWS_ACCESS_KEY_ID", IamAwsProvider(custom_endpoint=endpoint, http_client=near)

    def retrieve(self) -> Credentials:
        """The credentials, fetched once until they expire.

        Raises UserError where there are none, StepError where there are none any longer.
        """
        with self._lock:
            if self._credentials is None or self._credentials.is_expired():
                self._credentials = self._fetch()
            return self._credentials

    def renews(self, used: Credentials) -> bool:
        """Whether there are other credentials than those that were refused; they are fetched anew."""
        with self._lock:
            if self._credentials == used:
                self._credentials = self._fetch()
            return self._credentials != used

    def _fetch(self) -> Credentials:
        source, provider = self._place(os.environ)
        try:
            return provider.retrieve()
        except (ValueError, KeyError, OSError, HTTPError, ParseError, configparser.Error) as error:
            if self._credentials:
                raise StepError(f"store failed: no new credentials ({_reason(error)}); see {source}") from None
            raise UserError(f"store is not usable: no credentials ({_reason(error)}); see {source}") from None


def _reason(error: Exception) -> str:
    """What went wrong, without the query of a URL and the lines of a file: there are tokens in them."""
    if isinstance(error, MaxRetryError):
        return str(error.reason)
    if isinstance(error, (configparser.Error, KeyError, ParseError)):
        return f"the answer or the file is malformed: {type(error).__name__}"
    return re.sub(r"\?\S*", "", str(error))
