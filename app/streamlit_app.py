"""klaudit's pages: runs, one run, its findings, reward against drift, drift of its checkpoints."""

from pathlib import Path

import streamlit as st

from problems import explain_problems

HERE = Path(__file__).parent

st.set_page_config(page_title="klaudit", page_icon=HERE / "icon.svg", layout="wide")
st.logo(HERE / "logo.svg", size="large")
page = st.navigation(
    [
        st.Page(
            "app_pages/runs.py", title="Runs", icon=":material/list_alt:", default=True, help="Every run with its KL, budget and findings."
        ),
        st.Page(
            "app_pages/run.py", title="Run", icon=":material/show_chart:", help="One run step by step: KL, beta, reward, findings, text."
        ),
        st.Page(
            "app_pages/findings.py",
            title="Findings",
            icon=":material/troubleshoot:",
            help="What was found: what happened, why it matters, the evidence, what to do.",
        ),
        st.Page(
            "app_pages/frontier.py",
            title="Reward",
            icon=":material/trending_up:",
            help="Score and held-out score against drift: where the held-out score peaks, and which beta ends there.",
        ),
        st.Page("app_pages/drift.py", title="Drift", icon=":material/social_distance:", help="Checkpoints measured against the reference."),
    ],
    position="top",
)
with explain_problems():
    page.run()
