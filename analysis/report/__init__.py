"""All that is known of a study on one page: numbers and figures in, tables, captions and HTML out."""
