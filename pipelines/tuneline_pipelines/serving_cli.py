"""The verbs by which a registered model answers: predict, for a file, and serve, over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuneline.errors import InputError
from tuneline_pipelines.console import remark, told, verb

app = typer.Typer()
PRECISION = "fp32, exact; or bf16, quicker where the hardware has it."


@app.command()
@verb
def predict(
    model: Annotated[str, typer.Argument(help="MODEL@alias or MODEL/VERSION.")],
    file: Annotated[str, typer.Argument(help="CSV, TSV, JSON Lines or Parquet.")],
    column: Annotated[str, typer.Option(help="The column of texts.")] = "text",
    pair_column: Annotated[str, typer.Option(help="That of second texts, for a model of pairs.")] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .csv, .jsonl or .parquet file; else CSV on stdout.")
    ] = None,
    precision: Annotated[str, typer.Option(help=PRECISION)] = "fp32",
) -> None:
    """Label the texts of a file, of any size, with a registered model.

    \b
    tuneline predict quickstart@champion new.csv -o labelled.csv

    \b
    With -o, a command that was stopped or killed goes on from where it was when
    it is given again.
    """
    from tuneline.serve.files import check_precision, named, write
    from tuneline.serve.files import predict as rows_of
    from tuneline.serve.resume import predict_to
    from tuneline_pipelines.show import LiveSteps
    from tuneline_pipelines.state import open_state

    check_precision(precision)
    if output and output.resolve() == Path(file).resolve():
        raise InputError(f"--output: {output} is the input; name another file")
    open_state()
    columns = named(column, pair_column)
    with LiveSteps(told) as live:

        def tell(done: int, total: int, note: str = "texts") -> None:
            live.tell("predict", done, total, note)

        if output:
            predict_to(model, file, columns, output, tell, remark, precision)
        else:
            write(rows_of(model, file, columns, tell, precision), None)


@app.command()
@verb
def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL@alias", help="Or MODEL/VERSION, which is not followed.")],
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines ask.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    precision: Annotated[str, typer.Option(help=PRECISION)] = "fp32",
    poll_seconds: Annotated[float, typer.Option(help="Between two looks at the alias.")] = 5.0,
    max_texts: Annotated[int, typer.Option(help="Texts in one request.")] = 1000,
    max_bytes: Annotated[int, typer.Option(help="Of a request's body.")] = 1_000_000,
    max_waiting: Annotated[int, typer.Option(help="Texts that may wait; beyond it requests get 503.")] = 2000,
    pass_tokens: Annotated[int, typer.Option(help="Tokens in one pass of the network.")] = 2048,
    timeout_seconds: Annotated[float, typer.Option(help="A request not answered by then gets 503.")] = 30.0,
    linger_seconds: Annotated[
        float, typer.Option(help="After SIGTERM requests are still taken so long, while /ready says 503.")
    ] = 0.0,
    drain_seconds: Annotated[float, typer.Option(help="Most seconds for the requests under way, after that.")] = 30.0,
) -> None:
    """Answer over HTTP, and follow the alias without losing a request.

    \b
    tuneline serve quickstart@champion
    curl -H 'Content-Type: application/json' -d '{"texts": ["where is my parcel"]}' http://127.0.0.1:8080/predict
    """
    given = {name: value for name, value in locals().items() if name != "model"}
    from tuneline.serve.server import serve as answer
    from tuneline.serve.service import Options
    from tuneline_pipelines.state import open_state

    options = Options(**given)
    open_state()
    answer(model, options)
