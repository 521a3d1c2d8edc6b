# JupyterLab and the book, with the packages of requirements.lock. Not built by the authors, who had no Docker at hand.
#
#   docker build -t wamlib .
#   docker run --rm -it -p 127.0.0.1:8888:8888 -v wamlib-data:/home/reader/wamlib/data wamlib
#   docker run --name book -v wamlib-data:/home/reader/wamlib/data wamlib make book
#   docker cp book:/home/reader/wamlib/book/_build/html .
#
# The first run prints the address of JupyterLab with its token; the volume keeps what was trained. The second builds the
# book. Chromium is not here, so the tests of the interactive figure are skipped, and those that ask git what is tracked
# need a checkout, as in the development container.
#
# One stage: all locked packages come as wheels, so there is no compiler to leave behind.
FROM python:3.12-slim

RUN apt-get update \
 && apt-get install -y --no-install-recommends git make \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 --shell /bin/bash reader

# In the home folder, which a development container gives to the user's own id, so that pip may write here.
USER reader
ENV PATH=/home/reader/venv/bin:$PATH
RUN python -m venv /home/reader/venv && mkdir /home/reader/wamlib
WORKDIR /home/reader/wamlib

# First the packages, which change seldom; they are as large as `make setup` says.
COPY --chown=reader:reader requirements.lock ./
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.lock

# A container's own localhost cannot be reached from outside; the token stays.
RUN mkdir -p /home/reader/venv/etc/jupyter \
 && echo '{"ServerApp": {"ip": "0.0.0.0", "port": 8888, "open_browser": false}}' \
    > /home/reader/venv/etc/jupyter/jupyter_server_config.json

# With wamlib installed, make takes this environment instead of setting up another.
COPY --chown=reader:reader . .
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps -e .

EXPOSE 8888
CMD ["make", "lab"]
