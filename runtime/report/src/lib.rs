//! Records to pages: tables, claims, curves and pictures as HTML and Markdown. Runs nothing.
