"""FastAPI, as its tutorial has it. A run takes microseconds, so it stays on the event loop: a thread costs more."""
from digits import score
from fastapi import FastAPI
from pydantic import BaseModel


class Rows(BaseModel):
    data: list[list[float]]


app = FastAPI()


@app.post("/score")
async def answer(rows: Rows):
    label, probabilities = score(rows.data)
    return {"label": label.tolist(), "probabilities": probabilities.tolist()}
