"""Ordinary sentences in English and Chinese, written for this project: how well a model foresees them tells whether it forgets.

Losses are compared over the same texts only, so whoever changes them raises VERSION.
"""

VERSION = 1

ENGLISH = (
    "The ferry leaves the island at seven in the morning, and whoever misses it has to wait until the evening. Most people bring a "
    "book, some bring a fishing rod, and the owner of the small café at the pier knows all of them by name.",
    "Water boils at a lower temperature on a mountain than at the sea, because the air presses less on its surface. That is why pasta"
    " takes longer to cook up there, although the pot seems to boil more wildly.",
    "When the library opened its new reading room, nobody expected that the oldest table would become the favorite one. It has "
    "scratches from a hundred years of pens, and it stands next to the only window that can be opened.",
    "A contract should say what happens if one side does not deliver in time. Without such a clause, both sides depend on what a "
    "court considers usual, and that can take many months to find out.",
    "To plant a tree, dig a hole that is twice as wide as its roots and no deeper. Fill it with the same soil, press it down gently, "
    "and water it every few days during the first summer.",
    "The committee met on Tuesday to discuss the budget for the coming year. Two members asked for more money for schools, one for "
    "better roads, and the chair reminded everybody that taxes would not rise before the next election.",
    "My grandmother kept every letter that she ever received in a box under her bed. After her death we read them one by one, and "
    "learned that she had once planned to leave for Brazil with a man whose name none of us had heard before.",
    "A prime number is divisible by one and by itself only. There is no largest one: multiply all primes that you know and add one, "
    "and the result has a factor that is not on your list.",
    "The patient complained of a headache that had lasted for three days. His blood pressure was normal, his temperature slightly "
    "raised, and the doctor advised him to rest, to drink enough, and to come back if it did not get better.",
    "Before you update the software, save your work and make a copy of your settings. The installation takes about ten minutes, "
    "during which the computer must not be turned off.",
    "Bees tell each other where flowers are by dancing. The angle of the dance gives the direction relative to the sun, and its "
    "length gives the distance, so that the others find a meadow that they have never seen.",
    "In the second half, the visitors played with one man less and still scored twice. Their goalkeeper saved a penalty in the last "
    "minute, and thousands of people sang in the streets until long after midnight.",
    "She opened the door, put down her bags, and noticed at once that something was missing. The clock on the wall was gone, and so "
    "was the cat, who usually slept beneath it.",
    "Interest rates influence how much families and companies borrow. If they rise, loans become more expensive, people buy fewer "
    "houses, and prices grow more slowly; if they fall, the opposite happens after a while.",
    "Mix the flour with the butter until it looks like coarse sand, add the egg and a little cold water, and let the dough rest for "
    "half an hour. Then roll it out, lay it into the form, and bake it until the edges are golden.",
    "What do you think about the new train station? I find it too large and too cold, but at least there are finally enough benches, "
    "and nobody has to stand in the rain any more.",
)
CHINESE = (
    "清晨的市場總是最熱鬧的，賣菜的阿姨一邊招呼客人，一邊把剛到的青菜排得整整齊齊。轉角那家豆漿店前面已經排了十幾個人。",
    "水在高山上比較容易沸騰，因為那裡的氣壓比較低。雖然鍋子裡的水看起來滾得很厲害，溫度其實不到一百度，所以煮麵要花更多時間。",
    "這條老街上的房子大多有一百年以上的歷史。政府希望保留原來的樣子，居民則希望能裝電梯，讓老人家上下樓方便一些。",
    "他每天搭六點半的火車上班，車上總是坐著同樣的幾個人。大家從來沒有說過話，可是如果有人沒來，其他人都會覺得奇怪。",
    "申請補助的人必須在月底以前把文件寄到辦公室，信封上要寫清楚姓名和電話。逾期的申請將不予受理。",
    "颱風過後，山上的道路中斷了三天，村民只能靠步行把食物和藥品送進去。學校停課，孩子們倒是很高興。",
    "媽媽說，煮湯最重要的是耐心。先用大火把水燒開，再轉小火慢慢熬兩個小時，最後才放鹽，這樣味道才會好。",
    "圖書館新買了一批關於天文學的書，其中有一本介紹了黑洞是怎麼形成的。作者用簡單的比喻，讓沒有學過物理的讀者也看得懂。",
    "公司決定明年在南部設立第二間工廠，預計可以增加三百個工作機會。不過附近的居民擔心空氣和噪音的問題，要求先進行環境評估。",
    "下半場剛開始，主隊就有一名球員受傷離場。儘管少了一個人，他們還是在最後五分鐘追平了比分，全場觀眾都站起來鼓掌。",
    "更新軟體之前，請先儲存檔案並備份設定。安裝過程大約需要十分鐘，期間請不要關閉電源。",
    "你覺得我們應該先去博物館還是先吃飯？如果現在去博物館，可能要排隊；如果先吃飯，下午又怕下雨。",
)
TEXTS = ENGLISH + CHINESE
