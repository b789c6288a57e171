"""Names that people give to columns of text, labels and splits, in the order of how sure they are."""

TEXT_NAMES = (
    *("text", "sentence", "comment", "review", "tweet", "content", "message", "body", "post", "document"),
    *("utterance", "question", "description", "abstract", "headline", "title"),
    *("文本", "文字", "內容", "内容", "評論", "评论", "留言", "句子"),
)
LABEL_NAMES = (
    *("label", "labels", "sentiment", "class", "mood", "category", "target", "emotion", "intent", "topic", "polarity"),
    *("tag", "rating", "stars", "score", "y", "標籤", "标签", "類別", "类别", "情緒", "情绪", "情感", "分類", "分类"),
)
SPLIT_COLUMN_NAMES = ("split", "subset", "partition", "fold", "set", "is_valid", "is_validation", "is_test")
PAIR_NAMES = (  # two texts of which the label tells how they stand to each other
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("#1 string", "#2 string"),
    ("text", "text_pair"),
)
